"""A service's own side, inside its namespace: how it answers, ends, and is run by hand.

A service is a module with `main(argv, control)`, which hands over to `serve`. `control` is the conversation
with the program; without one the service was started by hand, and goes on in the background. Standard
library only.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Protocol

from patchbay.sandbox.inside import wire

__all__ = ["Control", "Server", "UsageError", "begin", "serve"]


class UsageError(ValueError):
    """Arguments, or a request, that mean nothing."""


class Server(Protocol):
    """The server that a service makes from its arguments."""

    def serve(self) -> None:
        """Serve until the conversation ends, or for as long as there is something to serve."""

    def close(self) -> None:
        """Let go of everything."""


class Control:
    """The conversation with the program."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()

    def tell(self, message: wire.Message) -> bool:
        """Say something. Return whether somebody was there to hear it."""
        try:
            wire.send(self._sock, message)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def attend(self, answer: Callable[[wire.Message], wire.Message]) -> bool:
        """Read a request and answer it, with its error if it has one. Return False at the end."""
        message, fds = wire.receive(self._sock)
        for fd in fds:
            os.close(fd)
        if message is None:
            return False
        try:
            reply = answer(message)
        except (UsageError, OSError) as error:
            reply = _failure(error)
        return self.tell(reply)


Make = Callable[[list[str], Control | None], Server]


def begin(
    main: Callable[[list[str], socket.socket | None], None], name: str, argv: list[str], sock: socket.socket
) -> None:
    """Run a service's `main` in this process, and report what it dies of."""
    # The name that `ps` and `pgrep` show.
    with open("/proc/self/comm", "w") as comm:
        comm.write(name)
    try:
        main(argv, sock)
    except Exception:
        Control(sock).tell({"died": traceback.format_exc()})


def serve(name: str, make: Make, argv: list[str], sock: socket.socket | None) -> None:
    """Make the server, say that it is up or what is wrong, and let it serve until its end."""
    if sock is None:
        _by_hand(name, make, argv)
        return
    control = Control(sock)
    try:
        server = make(argv, control)
    except (UsageError, OSError) as error:
        control.tell(_failure(error))
        return
    try:
        if control.tell({"up": True}):
            server.serve()
    finally:
        server.close()


def _failure(error: UsageError | OSError) -> wire.Message:
    return wire.failure(error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error)))


def _by_hand(name: str, make: Make, argv: list[str]) -> None:
    """Serve in the background; return, or exit with what is wrong, once that is known."""
    reader, writer = os.pipe()
    # First, because the children of a server end with the process that started them.
    if not _detached():
        os.close(writer)
        with os.fdopen(reader) as said:
            status, _, problem = said.read().partition(" ")
        if problem:
            print(f"{name}: {problem}", file=sys.stderr)
            sys.exit(int(status))
        return
    try:
        server = make(argv, None)
    except (UsageError, OSError) as error:
        code = 2 if isinstance(error, UsageError) else 1
        os.write(writer, f"{code} {_failure(error)['error']}".encode())
        return
    os.close(writer)
    try:
        server.serve()
    finally:
        server.close()


def _detached() -> bool:
    """Go on in the background. Return whether this is the process that does."""
    if os.fork():
        return False
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    return True
