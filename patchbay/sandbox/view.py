"""The program's side of a node: its sockets, and the way to its processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import subprocess
import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import trio

from patchbay.errors import LabClosedError, LabDiedError, StaleHandleError
from patchbay.sandbox.guard import allowed
from patchbay.sandbox.sandbox import Sandbox

__all__ = ["NodeView", "close_sockets_of"]

# include/uapi/linux/sockios.h: a descriptor of the network namespace of a socket.
SIOCGSKNS = 0x894C


class NodeView:
    """A node as its processes and sockets see it: made before the first of them, which takes 1 ms.

    `namespace` identifies its network namespace as the kernel does.
    """

    def __init__(self, sandbox: Sandbox, ns: str, shown: Mapping[str, str]) -> None:
        self.ns = ns
        self.agent = sandbox.agent
        self._children = sandbox.children
        self._asking = sandbox.asking
        self._shown = dict(shown)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        # socket() may be called from any thread, and must not be overtaken by close().
        self._lock = threading.Lock()
        self._closed = False
        self.agent.request_now({"view": {"ns": ns, "shown": self._shown}})
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM, 0) as probe:
            self.namespace = _namespace_of(probe.fileno())

    def socket(self, family: int, kind: int, proto: int) -> socket.socket:
        """Make a plain socket of the node. Blocks for some 50 µs."""
        with self._lock:
            if self._closed:
                raise StaleHandleError("the node of this socket is gone")
            fd = self._asking.ask({"socket": (self.ns, int(family), int(kind), proto)})
            with allowed():
                made = socket.socket(family, kind, proto, fileno=fd)
            self._sockets.add(made)
        return made

    def adopt(self, child: subprocess.Popen[Any]) -> None:
        """Note a process of the node that is a child of the program."""
        self._children.difference_update([each for each in list(self._children) if each.poll() is not None])
        self._children.add(child)

    def show(self, files: Mapping[str, str]) -> None:
        """Show files at other places (target: source), and no others, to the node's processes."""
        if self._shown != files:
            self._shown = dict(files)
            self.agent.request_now({"show": {"ns": self.ns, "shown": self._shown}})

    def leave(self) -> None:
        """End what runs in the node, and close every socket that was handed out, because the node is gone."""
        self.close_sockets()
        # In a dead lab nothing is left to end.
        with contextlib.suppress(LabClosedError, LabDiedError):
            self.agent.request_now({"leave": self.ns})

    def close_sockets(self) -> None:
        """Close every socket that was handed out, and hand out no more."""
        with self._lock:
            self._closed = True
        for handed_out in list(self._sockets):
            if handed_out.fileno() >= 0:
                # Wakes the tasks that wait for it; nothing else would.
                trio.lowlevel.notify_closing(handed_out)
                handed_out.close()


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


def close_sockets_of(views: Iterable[NodeView]) -> None:
    """Take away what the program still holds of these nodes: each socket keeps a namespace alive.

    Sockets handed out are closed already; left are those that were accepted, duplicated or
    detached. Their descriptors are pointed at /dev/null rather than closed: whoever owns one still
    closes it himself, and must not then hit a descriptor that came to be in between.
    """
    ours = {view.namespace for view in views} - {None}
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
