"""A command of a node on the user's terminal: through a pty of its own, with the settings put back after."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import socket
import struct
import termios
import tty
from collections.abc import Iterator
from typing import Any

from patchbay.errors import LabDiedError
from patchbay.sandbox.inside import wire
from patchbay.sandbox.relay import refused
from patchbay.sandbox.spawn import Spawn

__all__ = ["on_terminal"]


def on_terminal(conversation: socket.socket, what: Spawn, ns: str) -> int:
    """Run the command with a terminal. Return its wait status."""
    master, slave = pty.openpty()
    _copy_size(master)
    wire.send(conversation, {"spawn": what.request(ns, (), tty=os.ttyname(slave))})
    message, _ = wire.receive(conversation)
    os.close(slave)
    if message is None:
        return refused(LabDiedError("the lab is gone"))
    if error := wire.error_of(message):
        return refused(error)
    signal.signal(signal.SIGWINCH, lambda *_: _copy_size(master))
    with _raw_terminal():
        return _proxy(master, conversation)


def _copy_size(master: int) -> None:
    size = fcntl.ioctl(0, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0))
    fcntl.ioctl(master, termios.TIOCSWINSZ, size)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Let the terminal pass every key on until the block is left or this process ends.

    A guard, forked for it, puts the settings back when its pipe closes: also after SIGKILL.
    """
    before = termios.tcgetattr(0)
    reader, writer = os.pipe()
    guard = os.fork()
    if guard == 0:
        os.close(writer)
        _guard(reader, before)
    os.close(reader)
    # Now, and not after a flush: what was typed ahead is for the command.
    tty.setraw(0, termios.TCSANOW)
    try:
        yield
    finally:
        os.close(writer)
        os.waitpid(guard, 0)


def _guard(reader: int, before: list[Any]) -> None:
    # Whatever ends the user's session must not end the guard before its work is done; and a
    # process in the background may set the terminal only if it ignores SIGTTOU.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTTOU):
        signal.signal(signum, signal.SIG_IGN)
    try:
        os.read(reader, 1)
        termios.tcsetattr(0, termios.TCSADRAIN, before)
    finally:
        os._exit(0)


def _proxy(master: int, conversation: socket.socket) -> int:
    """Pass keys in and output out until the command has ended and all it wrote is shown."""
    sources = select.poll()
    for fd in (0, master, conversation.fileno()):
        sources.register(fd, select.POLLIN)
    status: int | None = None
    while True:
        # Once it has ended, only what is left in the pty counts.
        ready = {fd for fd, _ in sources.poll(0 if status is not None else None)}
        if master in ready and _pass(master, 1):
            continue
        if status is not None:
            return status
        if 0 in ready and not _pass(0, master):
            sources.unregister(0)
        if conversation.fileno() in ready:
            ended, _ = wire.receive(conversation)
            status = ended["status"] if ended else int(signal.SIGKILL)
            sources.unregister(conversation.fileno())


def _pass(source: int, target: int) -> bool:
    try:
        data = os.read(source, 65536)
    except OSError:  # EIO: nobody has the other end of the pty open any more
        return False
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
    return bool(data)
