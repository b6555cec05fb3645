"""The live parts of a lab: its agent, what runs in its nodes, and the tasks that serve them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from patchbay.errors import LabClosedError, LabDiedError, StaleHandleError
from patchbay.layout.layout import Layout, NodeLayout
from patchbay.plan.userland import userland
from patchbay.sandbox.sandbox import Sandbox
from patchbay.sandbox.services import Services
from patchbay.sandbox.view import NodeView, close_sockets_of

if TYPE_CHECKING:
    from patchbay.sandbox.calls import Caller

__all__ = ["Session"]


class Session:
    """Makes what a node needs to run something when it is first needed, and ends everything at once."""

    def __init__(self, sandbox: Sandbox, nursery: trio.Nursery) -> None:
        self.sandbox = sandbox
        self.services = Services(sandbox, nursery)
        self._nursery = nursery
        self._views: dict[str, NodeView] = {}
        self._callers: dict[str, Caller] = {}
        self._starting = trio.Lock()
        self.died: LabDiedError | None = None

    def view(self, node: NodeLayout, layout: Layout) -> NodeView:
        """Return the view of a node. Blocks for 1 ms when it has to be made."""
        if node.ns not in self._views:
            self._views[node.ns] = NodeView(self.sandbox, node.name, node.ns, userland(layout, node))
        return self._views[node.ns]

    async def caller(self, node: NodeLayout) -> Caller:
        """Return the process that runs a node's calls."""
        from patchbay.sandbox.calls import Caller

        async with self._starting:
            caller = self._callers.get(node.ns)
            if caller is not None and caller.dead:
                caller.close(caller.dead)
            if caller is None or caller.dead:
                caller = self._callers[node.ns] = await Caller.start(node.name, node.ns, self.sandbox.agent)
                self._nursery.start_soon(caller.read_answers)
        return caller

    def follow(self, old: Layout, new: Layout) -> None:
        """End what ran in nodes that are gone, and show the others the names that they have now."""
        if old.devices is not new.devices or old.forwarders is not new.forwarders:
            # A node that was removed and added again in one batch is another node in the same namespace.
            gone = {(node.ns, node.number) for node in old.nodes()} - {(n.ns, n.number) for n in new.nodes()}
            for ns in self._views.keys() & {ns for ns, _ in gone}:
                self._end(ns)
        if old is not new and self._views:
            for node in new.nodes():
                if view := self._views.get(node.ns):
                    view.show(userland(new, node))

    def _end(self, ns: str) -> None:
        view = self._views.pop(ns)
        if caller := self._callers.pop(ns, None):
            caller.close(StaleHandleError(f"the node '{view.node}' was removed"))
        view.leave()
        close_sockets_of([view])

    def start(self, async_fn: Callable[..., Awaitable[object]], *args: object) -> None:
        """Start a task of the lab's own."""
        self._nursery.start_soon(async_fn, *args)

    async def watch(self, scope: trio.CancelScope) -> None:
        """Cancel the lab's block when its agent dies: nothing in it can go on."""
        self.died = await self.sandbox.died()
        if self.died:
            scope.cancel()

    async def close(self) -> None:
        """End everything. Calls under way raise `LabClosedError`, or the error of the lab's own death."""
        for caller in self._callers.values():
            caller.close(self.died or LabClosedError())
        for view in self._views.values():
            view.close_sockets()
        close_sockets_of(self._views.values())
        self.services.close()
        await self.sandbox.close()
