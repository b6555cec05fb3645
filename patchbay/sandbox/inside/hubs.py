"""The processes in which services share: each serves several, of one module. Standard library only."""

from __future__ import annotations

import importlib
import signal
import socket
from typing import Any

from patchbay.sandbox.inside import kernel, wire
from patchbay.sandbox.inside.server import Conversation, Server

__all__ = ["Hubs"]

# Each process gets a fair share of the processors, so as long as there are few, each serves one.
_SPREAD = 32
# The kernel closes the sockets of a process that ends one after the other, and waits for a grace period of
# RCU, 12 ms here, for each packet socket, of which a link has two or more (af_packet.c, packet_release).
_MOST = 8


class _Hub:
    """One of them, and how many services it has."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.serves = 0


class Hubs:
    """Spreads services over processes: 32 of them before any has two services, and no more than 8 in one."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._hubs: dict[str, list[_Hub]] = {}

    def put(self, conversation: Conversation, request: dict[str, Any]) -> None:
        """Have a service run in one of the processes. The conversation is the service's from here on."""
        hub = self._with_room(request["module"])
        while not self._send(hub, conversation, request):  # it has just died
            self._let_go(request["module"], hub)
            hub = self._with_room(request["module"])
        hub.serves += 1
        conversation.hand_over()

    def _send(self, hub: _Hub, conversation: Conversation, request: dict[str, Any]) -> bool:
        alone = hub.serves == 0 and len(self._hubs[request["module"]]) <= _SPREAD
        message = {"ns": request["ns"], "args": request["args"], "alone": alone}
        try:
            wire.send(hub.sock, message, (conversation.sock.fileno(),))
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _with_room(self, module: str) -> _Hub:
        hubs = self._hubs.setdefault(module, [])
        emptiest = min(hubs, key=lambda hub: hub.serves, default=None)
        if emptiest and len(hubs) >= _SPREAD and emptiest.serves < _MOST:
            return emptiest
        hub = self._fork(module)
        hubs.append(hub)
        return hub

    def _fork(self, module: str) -> _Hub:
        ours, theirs = wire.pair()
        # Loaded here, so that every fork has it already.
        main = importlib.import_module(module).main_of_many

        def work() -> None:
            kernel.die_with_parent(signal.SIGKILL)
            main(theirs)

        self._server.fork(work, {theirs.fileno()})
        theirs.close()
        hub = _Hub(ours)
        self._server.watch(ours.fileno(), lambda: self._hear(module, hub))
        return hub

    def _hear(self, module: str, hub: _Hub) -> None:
        """Count what has ended. One without services ends itself when it is let go."""
        message, _ = wire.receive(hub.sock)
        if message is not None:
            hub.serves -= 1
        if message is None or hub.serves == 0:
            self._let_go(module, hub)

    def _let_go(self, module: str, hub: _Hub) -> None:
        self._hubs[module].remove(hub)
        self._server.forget(hub.sock.fileno())
        hub.sock.close()
