"""The live parts of a lab: its agent, the workers in its nodes, and the tasks that serve them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from patchbay.errors import LabDiedError
from patchbay.layout.layout import Layout, NodeLayout
from patchbay.plan.hosts import own_files
from patchbay.sandbox.calls import Caller
from patchbay.sandbox.helpers import Helpers
from patchbay.sandbox.sandbox import Sandbox
from patchbay.sandbox.worker import Worker, close_sockets_of

__all__ = ["Session"]


class Session:
    """Starts a node's worker when it is first needed, and ends everything at once."""

    def __init__(self, sandbox: Sandbox, nursery: trio.Nursery) -> None:
        self.sandbox = sandbox
        self.helpers = Helpers(sandbox, nursery)
        self._nursery = nursery
        self._workers: dict[str, Worker] = {}
        self._callers: dict[str, Caller] = {}
        self._starting = trio.Lock()
        self.died: LabDiedError | None = None

    def worker(self, node: NodeLayout, layout: Layout) -> Worker:
        """Return the worker of a node. Blocks for a few ms when it has to be started."""
        if node.ns not in self._workers:
            self._workers[node.ns] = Worker(self.sandbox, node.ns, own_files(layout, node))
        return self._workers[node.ns]

    async def caller(self, node: NodeLayout, worker: Worker) -> Caller:
        """Return the process that runs a node's calls."""
        async with self._starting:
            caller = self._callers.get(node.ns)
            if caller is not None and caller.dead:
                caller.close()
            if caller is None or caller.dead:
                caller = self._callers[node.ns] = await Caller.start(node.name, worker.channel)
                self._nursery.start_soon(caller.read_answers)
        return caller

    def follow(self, old: Layout, new: Layout) -> None:
        """End what ran in nodes that are gone, and show the others the names that they have now."""
        if old.devices is not new.devices or old.forwarders is not new.forwarders:
            # A node that was removed and added again in one batch is another node in the same namespace.
            gone = {(node.ns, node.number) for node in old.nodes()} - {(n.ns, n.number) for n in new.nodes()}
            for ns in self._workers.keys() & {ns for ns, _ in gone}:
                self._end(ns)
        if old.names is not new.names:
            for node in new.nodes():
                if worker := self._workers.get(node.ns):
                    worker.show(own_files(new, node))

    def _end(self, ns: str) -> None:
        if caller := self._callers.pop(ns, None):
            caller.close()
        worker = self._workers.pop(ns)
        worker.close()
        close_sockets_of([worker])

    def start(self, async_fn: Callable[..., Awaitable[object]], *args: object) -> None:
        """Start a task of the lab's own."""
        self._nursery.start_soon(async_fn, *args)

    async def watch(self, scope: trio.CancelScope) -> None:
        """Cancel the lab's block when its agent dies: nothing in it can go on."""
        self.died = await self.sandbox.died()
        if self.died:
            scope.cancel()

    async def close(self) -> None:
        for caller in self._callers.values():
            caller.close()
        for worker in self._workers.values():
            worker.close()
        close_sockets_of(self._workers.values())
        self.helpers.close()
        await self.sandbox.close()
