"""Long-lived helper processes of patchbay's own in a lab's namespaces, forked from its agent."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence

import trio

from patchbay.sandbox.inside import wire
from patchbay.sandbox.sandbox import Sandbox

__all__ = ["Helpers"]

# A fork and the opening of sockets take milliseconds; on a loaded machine more.
_STARTS_WITHIN = 10.0

Key = tuple[str, str]


class Helpers:
    """Those that run, by namespace and name. `died` is told when one ends that nobody ended."""

    def __init__(self, sandbox: Sandbox, nursery: trio.Nursery) -> None:
        self._sandbox = sandbox
        self._nursery = nursery
        self._running: dict[Key, _Running] = {}
        self.died: Callable[[str, str, str], None] = lambda ns, name, words: None

    async def put(self, ns: str, name: str, module: str, args: Sequence[str]) -> None:
        """Start the helper, or tell the one that runs its new arguments. Raises `OSError`."""
        running = self._running.get((ns, name))
        if running is not None:
            with contextlib.suppress(BrokenPipeError):
                await running.ask({"set": list(args)})
                return
            self.end(ns, name)  # it has died just now
        await self._start(ns, name, module, args)

    async def _start(self, ns: str, name: str, module: str, args: Sequence[str]) -> None:
        sock = self._sandbox.agent.converse()
        try:
            wire.send(sock, {"helper": {"ns": ns, "module": module, "args": list(args)}})
            with trio.fail_after(_STARTS_WITHIN):
                await self._sandbox.agent.answer(sock)
        except BaseException:
            sock.close()
            raise
        running = self._running[ns, name] = _Running(sock)
        self._nursery.start_soon(self._watch, (ns, name), running)

    async def _watch(self, key: Key, running: _Running) -> None:
        await running.read()
        if not running.closing and self._running.get(key) is running and self._sandbox.alive:
            del self._running[key]
            running.close()
            self.died(*key, running.words)

    async def ask(self, ns: str, name: str, message: wire.Message) -> wire.Message:
        """Ask a helper that runs. Raises `KeyError` if it does not."""
        return await self._running[ns, name].ask(message)

    def end(self, ns: str, name: str) -> None:
        """End a helper; none by that name is fine."""
        running = self._running.pop((ns, name), None)
        if running:
            running.close()

    def close(self) -> None:
        for key in list(self._running):
            self.end(*key)


class _Running:
    """The conversation with a helper. One asks at a time; one task reads the answers."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._one_at_a_time = trio.Lock()
        self._send, self._receive = trio.open_memory_channel[wire.Message](1)
        self.closing = False
        self.words = ""

    async def read(self) -> None:
        """Take answers to who asked, until the helper ends."""
        with self._send, contextlib.suppress(trio.ClosedResourceError, OSError):
            while True:
                await trio.lowlevel.wait_readable(self._sock)
                message, _ = wire.receive(self._sock)
                if message is None:
                    return
                if "died" in message:
                    self.words = message["died"]
                    return
                self._send.send_nowait(message)

    async def ask(self, message: wire.Message) -> wire.Message:
        async with self._one_at_a_time:
            try:
                wire.send(self._sock, message)
                answer = await self._receive.receive()
            except (OSError, trio.EndOfChannel):
                raise BrokenPipeError("the helper process has ended") from None
        if "errno" in answer:
            raise OSError(answer["errno"], answer["error"])
        return answer

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
