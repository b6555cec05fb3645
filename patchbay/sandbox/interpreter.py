"""The prepared interpreter of this program: started once, asked for an agent by each lab."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from patchbay.sandbox.inside import wire

__all__ = ["fork_agent"]

_INSIDE = str(Path(__file__).resolve().parent / "inside")


class _Interpreter:
    """A child that forks agents; `patchbay.sandbox.inside.prepared` is its own side."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._sock, theirs = wire.pair()
        # Or Python would warn at the program's end that it is open.
        atexit.register(self._sock.close)
        program = os.pidfd_open(self.owner)
        # Above the numbers that they are to have there, so that none is overwritten by another.
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (theirs.fileno(), program)]
        os.close(program)
        theirs.close()
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", _INSIDE, "3", "4"],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                    (os.POSIX_SPAWN_DUP2, copies[0], 3),
                    (os.POSIX_SPAWN_DUP2, copies[1], 4),
                ],
                # It is in the program's process group, as its children are to be, but Ctrl-C is not for it.
                setsigmask=signal.valid_signals(),
            )
        finally:
            for fd in copies:
                os.close(fd)

    def send(self, message: wire.Message, fds: tuple[int, ...]) -> None:
        wire.send(self._sock, message, fds)

    def close(self) -> None:
        self._sock.close()
        # It is a child of the process that started it, not of a fork of that.
        if self.owner == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)


_lock = threading.Lock()
_running: _Interpreter | None = None


def fork_agent(path: str, channel: socket.socket, stderr: int) -> None:
    """Have an agent forked for a lab, from a prepared interpreter that is started if there is none.

    `path` is where its tools are, `channel` the other end of the way to it, `stderr` is for its last words.
    """
    global _running  # noqa: PLW0603  a program has one, whatever its threads
    message, fds = {"path": path}, (channel.fileno(), stderr)
    with _lock:
        if _running and _running.owner == os.getpid():
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                _running.send(message, fds)
                return
        if _running:  # it has ended, because it was not needed, or belongs to the parent of this process
            _running.close()
        _running = _Interpreter()
        _running.send(message, fds)
