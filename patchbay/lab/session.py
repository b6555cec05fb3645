"""The live parts of a lab: its agent, the workers in its nodes, and the tasks that serve them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from patchbay.errors import LabDiedError
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

    def worker(self, ns: str, binds: list[list[str]]) -> Worker:
        """The worker of a namespace. Blocks for a few ms when it has to be started."""
        if ns not in self._workers:
            self._workers[ns] = Worker(self.sandbox, ns, binds)
        return self._workers[ns]

    def has_worker(self, ns: str) -> bool:
        return ns in self._workers

    async def caller(self, name: str, worker: Worker) -> Caller:
        """The process that runs a node's calls."""
        key = name
        async with self._starting:
            caller = self._callers.get(key)
            if caller is None or caller.dead:
                caller = self._callers[key] = await Caller.start(name, worker.channel)
                self._nursery.start_soon(caller.read_answers)
        return caller

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
