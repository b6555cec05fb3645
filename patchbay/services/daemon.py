"""Supervision of an external program that serves: its start, its log, its end. Standard library only."""

from __future__ import annotations

import errno
import os
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence

__all__ = ["Daemon", "accepts", "environ", "logged", "readable_of"]

# Seconds. To start takes tens of milliseconds, to end less, on a quiet machine.
_STARTS_WITHIN, _ENDS_WITHIN = 5.0, 2.0
_LAST_LINES, _KEPT = 8, 4096
_LOOKS_EVERY = 0.02

# Given the log so far.
Ready = Callable[[bytes], bool]


def environ() -> dict[str, str]:
    """Return what a daemon and its tools run with: PATH, and what an ordinary user's leaves out."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    return {"PATH": path, "LC_ALL": "C"}


def logged(line: bytes) -> Ready:
    """Ready once it has logged this."""
    return lambda log: line in log


def accepts(host: str, port: int) -> Ready:
    """Ready once it accepts TCP connections."""

    def is_open(_log: bytes) -> bool:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            return sock.connect_ex((host, port)) == 0

    return is_open


class Daemon:
    """A program that stays in the foreground, logs to stderr, ends on SIGTERM, and dies with this process.

    `argv` begins with the program, which Debian has in `package`; `through` is put before it. `ready` tells
    whether it serves; lines of its log with a word of `ignored` are not among its last words.
    Raises `OSError`: with the way out where the program is missing, with its last words where it ends first.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        package: str,
        ready: Ready,
        through: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        ignored: Sequence[str] = (),
    ) -> None:
        self._name, self._ready, self._ignored, self._log = argv[0], ready, ignored, b""
        env = environ()
        if shutil.which(self._name, path=env["PATH"]) is None:
            way_out = f"repair: sudo apt-get install {package}"
            raise FileNotFoundError(errno.ENOENT, f"there is no {self._name} on PATH; {way_out}")
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *through, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=env,
            cwd="/",
            pass_fds=pass_fds,
        )
        assert self._process.stderr
        # Readable when it logs, and at its end.
        self.fd = self._process.stderr.fileno()

    def wait_ready(self) -> None:
        """Wait until it serves."""
        until = time.monotonic() + _STARTS_WITHIN
        while not self._ready(self._log):
            if readable_of((self.fd,), _LOOKS_EVERY) and not self.read():
                raise OSError(errno.EIO, f"before it served, {self.end()}")
            if time.monotonic() > until:
                when = f"as it did not serve within {_STARTS_WITHIN} s"
                raise OSError(errno.EIO, f"{when}, {self.end()}")

    def read(self) -> bool:
        """Read new log output. Return False at its end."""
        chunk = os.read(self.fd, 1 << 16)
        self._log = (self._log + chunk)[-_KEPT:]
        return bool(chunk)

    def end(self) -> str:
        """End it, if it has not ended. Return how it ended, with its last words."""
        self._process.terminate()
        try:
            status = self._process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        assert self._process.stderr
        self._process.stderr.close()
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        lines = self._log.decode(errors="replace").splitlines()
        lines = [line for line in lines if not any(word in line for word in self._ignored)]
        return "\n".join([f"{self._name} ended: {how}", *lines[-_LAST_LINES:]])


def readable_of(fds: Sequence[int], within: float | None) -> set[int]:
    """Wait until a descriptor is readable, or for `within` seconds. Return the readable ones."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(None if within is None else max(0, within) * 1000)}
