"""A service's own side, inside its namespace: how it answers, ends, and is run manually.

A service is a module with `main(argv, control)`, which hands over to `serve`. `control` is the conversation
with the program; without one the service was started manually, and goes on in the background. A module whose
services share processes also has `main_of_many(channel)`, which hands over to `serve_many`. Standard library
only.
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
from patchbay.sandbox.inside.machine import enter_network

__all__ = ["Control", "Hub", "Server", "UsageError", "begin", "serve", "serve_many"]


class UsageError(ValueError):
    """Arguments, or a request, that mean nothing."""


class Server(Protocol):
    """The server that a service makes from its arguments."""

    def serve(self) -> None:
        """Serve until the conversation ends, or for as long as there is something to serve."""

    def close(self) -> None:
        """Let go of everything."""


class Hub(Protocol):
    """The services of one process, each with its own conversation and in its own network namespace."""

    def add(self, argv: list[str], control: Control, ended: Callable[[], None], *, alone: bool) -> None:
        """Serve one more, in the namespace of the moment; call `ended` when its conversation has ended.

        It is `alone` if it has the process for itself as long as there are few services. Raises `UsageError`
        and `OSError`.
        """

    def tell_all(self, message: wire.Message) -> None:
        """Say something in every conversation."""

    def watch(self, fd: int, ready: Callable[[int], None]) -> None:
        """Call `ready` when there is something at a descriptor."""

    def forget(self, fd: int) -> None:
        """Watch it no more."""

    def serve(self) -> None:
        """Serve until there is nothing to watch."""


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
    _call_myself(name)
    try:
        main(argv, sock)
    except Exception:
        Control(sock).tell({"died": traceback.format_exc()})


def serve(name: str, make: Make, argv: list[str], sock: socket.socket | None) -> None:
    """Make the server, say that it is up or what is wrong, and let it serve until its end."""
    if sock is None:
        _run_manually(name, make, argv)
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


def serve_many(name: str, hub: Hub, channel: socket.socket) -> None:
    """Let a hub serve what comes by `channel`, and report what it dies of.

    A message has the namespace and the arguments of one service, says whether it is alone in its
    process, and brings the conversation about it. When
    one has ended the channel tells so; when the channel has ended there will be no more.
    """
    _call_myself(name)

    def ended() -> None:
        Control(channel).tell({"ended": True})

    def accept(_event: int) -> None:
        message, fds = wire.receive(channel)
        if message is None:
            hub.forget(channel.fileno())
            return
        control = Control(socket.socket(fileno=fds[0]))
        try:
            enter_network(message["ns"])
            hub.add(message["args"], control, ended, alone=message["alone"])
        except (UsageError, OSError) as error:
            control.tell(_failure(error))
            ended()
        else:
            control.tell({"up": True})

    hub.watch(channel.fileno(), accept)
    try:
        hub.serve()
    except Exception:
        hub.tell_all({"died": traceback.format_exc()})


def _call_myself(name: str) -> None:
    """Take the name that `ps` and `pgrep` show."""
    with open("/proc/self/comm", "w") as comm:
        comm.write(name)


def _failure(error: UsageError | OSError) -> wire.Message:
    return wire.failure(error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error)))


def _text(error: OSError) -> str:
    """Return an error without its number."""
    return f"{wire.explained(error)}: {error.filename}" if error.filename else wire.explained(error)


def _run_manually(name: str, make: Make, argv: list[str]) -> None:
    """Serve in the background; return, or exit with what is wrong, once that is known."""
    reader, writer = os.pipe()
    # First, because the children of a server end with the process that started them.
    if not _detached():
        os.close(writer)
        with os.fdopen(reader) as outcome:
            status, _, problem = outcome.read().partition(" ")
        if problem:
            print(f"{name}: {problem}", file=sys.stderr)
            sys.exit(int(status))
        return
    try:
        server = make(argv, None)
    except (UsageError, OSError) as error:
        code, text = (2, str(error)) if isinstance(error, UsageError) else (1, _text(error))
        os.write(writer, f"{code} {text}".encode())
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
