"""The program's side of a worker: the process that stands in a node and makes its sockets."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import threading
import weakref
from collections.abc import Iterable, Mapping

import trio

from patchbay.errors import StaleHandleError
from patchbay.sandbox import wire
from patchbay.sandbox.guard import allowed
from patchbay.sandbox.sandbox import ANSWER_WITHIN, Channel, Sandbox, patient

__all__ = ["Worker", "close_sockets_of"]

# include/uapi/linux/sockios.h: a descriptor of the network namespace of a socket.
SIOCGSKNS = 0x894C

# A fork of the agent into a namespace: milliseconds, but beside others' work.
_STARTS_WITHIN = 10.0


class Worker:
    """A node's worker. `namespace` identifies its network namespace as the kernel does."""

    def __init__(self, sandbox: Sandbox, ns: str, shown: Mapping[str, str]) -> None:
        sock = sandbox.agent.converse()
        wire.send(sock, {"worker": {"ns": ns, "shown": dict(shown)}})
        sandbox.agent.answer_now(sock, _STARTS_WITHIN)
        self.channel = Channel(sock, sandbox)
        self._shown = dict(shown)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._asking = self.channel.converse()
        patient(self._asking, ANSWER_WITHIN)
        # popen() and socket() may be called from any thread.
        self._lock = threading.Lock()
        self._closed = False
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM, 0) as probe:
            self.namespace = _namespace_of(probe.fileno())

    def socket(self, family: int, kind: int, proto: int) -> socket.socket:
        """A plain socket of the node. Blocks for some 50 µs."""
        with self._lock:
            if self._closed:
                raise StaleHandleError("the node of this worker is gone")
            wire.send(self._asking, {"socket": [family, kind, proto]})
            _, fds = self.channel.next_answer(self._asking)
        with allowed():
            made = socket.socket(family, kind, proto, fileno=fds[0])
        self._sockets.add(made)
        return made

    def show(self, files: Mapping[str, str]) -> None:
        """Show files at other places (target: source), and no others, to the node's processes."""
        if self._shown != files:
            self._shown = dict(files)
            self.channel.request_now({"show": self._shown})

    def close(self) -> None:
        """End the worker, its processes, and every socket that it handed out."""
        with self._lock:
            self._closed = True
        for handed_out in list(self._sockets):
            if handed_out.fileno() >= 0:
                # Wakes the tasks that wait for it; nothing else would.
                trio.lowlevel.notify_closing(handed_out)
                handed_out.close()
        self._asking.close()
        self.channel.close()


def _namespace_of(fd: int) -> tuple[int, int] | None:
    """What identifies the network namespace of a socket; None where it is none of ours."""
    try:
        ns = fcntl.ioctl(fd, SIOCGSKNS)
    except OSError:
        return None
    try:
        found = os.fstat(ns)
        return found.st_dev, found.st_ino
    finally:
        os.close(ns)


def close_sockets_of(workers: Iterable[Worker]) -> None:
    """Take away what the program still holds of these nodes: each socket keeps a namespace alive.

    Sockets handed out are closed already; left are those that were accepted, duplicated or
    detached. Their descriptors are pointed at /dev/null rather than closed: whoever owns one still
    closes it himself, and must not then hit a descriptor that came to be in between.
    """
    ours = {worker.namespace for worker in workers} - {None}
    if not ours:
        return
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for fd in map(int, os.listdir("/proc/self/fd")):
            if _is_socket(fd) and _namespace_of(fd) in ours:
                os.dup2(null, fd, inheritable=False)
    finally:
        os.close(null)


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False
