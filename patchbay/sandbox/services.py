"""The program's side of services: starting them, speaking with them, and noticing their end."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from functools import partial

import trio

from patchbay.sandbox.inside import wire
from patchbay.sandbox.inside.packages import program_path
from patchbay.sandbox.sandbox import Sandbox
from patchbay.tools.service import Service

__all__ = ["Services"]

# A fork and the opening of sockets take milliseconds; on a loaded machine more.
_STARTS_WITHIN = 10.0

Key = tuple[str, str]


def _key(service: Service) -> Key:
    return service.ns, service.name


class Services:
    """The running services of a lab.

    `died` is called with a service that ended by itself, and its last words; `reported` with a service and
    what it tells without being asked.
    """

    def __init__(self, sandbox: Sandbox, nursery: trio.Nursery) -> None:
        self._sandbox = sandbox
        self._nursery = nursery
        self._running: dict[Key, _Running] = {}
        self.died: Callable[[Service, str], None] = lambda service, words: None
        self.reported: Callable[[Service, wire.Message], None] = lambda service, message: None

    def runs(self, service: Service) -> bool:
        """Return whether a service of that name runs."""
        return _key(service) in self._running

    async def put(self, service: Service) -> None:
        """Start the service, or let the one that runs follow a change of its arguments. Raises `OSError`."""
        running = self._running.get(_key(service))
        if running is not None and not service.restarts:
            with contextlib.suppress(BrokenPipeError):
                await running.ask({"set": list(service.args)})
                return
        self.end(service)  # it cannot take new arguments, or has died just now
        await self._start(service)

    async def _start(self, service: Service) -> None:
        path = program_path() if service.packages else None
        request = {
            "ns": service.ns,
            "module": service.module,
            "args": list(service.args),
            "path": path,
            "shares": service.shares,
        }
        sock = self._sandbox.agent.converse()
        try:
            self._sandbox.agent.send(sock, {"service": request})
            with trio.fail_after(_STARTS_WITHIN):
                await self._sandbox.agent.answer(sock)
        except BaseException:
            sock.close()
            raise
        running = self._running[_key(service)] = _Running(sock, partial(self._reported, service))
        self._nursery.start_soon(self._watch, service, running)

    def _reported(self, service: Service, message: wire.Message) -> None:
        self.reported(service, message)

    async def _watch(self, service: Service, running: _Running) -> None:
        await running.read()
        if not running.closing and self._running.get(_key(service)) is running and self._sandbox.alive:
            del self._running[_key(service)]
            running.close()
            self.died(service, running.words)

    async def ask(self, ns: str, name: str, message: wire.Message) -> wire.Message:
        """Ask a service that runs. Raises `KeyError` if it does not."""
        return await self._running[ns, name].ask(message)

    def end(self, service: Service) -> None:
        """End a service; none of that name is fine."""
        if running := self._running.pop(_key(service), None):
            running.close()

    def close(self) -> None:
        """End all of them."""
        for running in self._running.values():
            running.close()
        self._running.clear()


class _Running:
    """The conversation with a service. One task asks at a time; one task reads the answers and reports."""

    def __init__(self, sock: socket.socket, report: Callable[[wire.Message], None]) -> None:
        self._sock = sock
        self._report = report
        self._one_at_a_time = trio.Lock()
        self._send, self._receive = trio.open_memory_channel[wire.Message](1)
        self.closing = False
        self.words = ""

    async def read(self) -> None:
        """Hand answers to the task that asked, until the service ends."""
        with self._send, contextlib.suppress(trio.ClosedResourceError, OSError):
            while True:
                await trio.lowlevel.wait_readable(self._sock)
                message, _ = wire.receive(self._sock)
                if message is None:
                    return
                if "died" in message:
                    self.words = message["died"]
                    return
                if "overloaded" in message:
                    self._report(message)
                    continue
                self._send.send_nowait(message)

    async def ask(self, message: wire.Message) -> wire.Message:
        async with self._one_at_a_time:
            try:
                wire.send(self._sock, message)
                answer = await self._receive.receive()
            except (OSError, trio.EndOfChannel):
                raise BrokenPipeError("the service has ended") from None
        if error := wire.error_of(answer):
            raise error
        return answer

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
