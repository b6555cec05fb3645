"""The program's side of a node: its sockets, and the way to its processes."""

from __future__ import annotations

import contextlib
import fcntl
import operator
import os
import socket
import stat
import struct
import subprocess
import threading
import weakref
from collections.abc import Iterable
from typing import Any

import trio

from patchbay.errors import LabClosedError, LabDiedError, StaleHandleError
from patchbay.plan.userland import Userland
from patchbay.sandbox.accounts import Account, account_of
from patchbay.sandbox.guard import allowed
from patchbay.sandbox.sandbox import Sandbox

__all__ = ["NodeView", "close_sockets_of", "in_node"]

# include/uapi/linux/sockios.h: an interface's number, and a descriptor of a socket's network namespace.
_SIOCGIFINDEX = 0x8933
_SIOCGSKNS = 0x894C


def in_node(node: str, error: OSError) -> OSError:
    """Return an error of the agent as an error in a node."""
    file = [error.filename] if error.filename else []
    return type(error)(error.errno, f"in '{node}': {error.strerror}", *file)


class NodeView:
    """A node as its processes and sockets see it: prepared before the first of them.

    `namespace` identifies the node's network namespace as the kernel does.
    """

    def __init__(self, sandbox: Sandbox, node: str, ns: str, userland: Userland) -> None:
        self.node = node
        self.ns = ns
        self.agent = sandbox.agent
        self._sandbox = sandbox
        self._userland = userland
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        # socket() may be called from any thread, and must not be overtaken by close().
        self._lock = threading.Lock()
        self._closed = False
        try:
            self.agent.request_now({"open": {"ns": ns, "userland": userland.message()}})
        except OSError as error:
            raise in_node(node, error) from None
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM, 0) as probe:
            self.namespace = _namespace_of(probe.fileno())

    def account(self, user: str | int | None) -> Account | None:
        """Return the ids of a user in this lab. Raises as `account_of` does."""
        return account_of(user, self._sandbox.ids) if user is not None else None

    def socket(self, family: int, kind: int, proto: int) -> socket.socket:
        """Make a plain socket of the node. Blocks for some 50 µs."""
        numbers = [operator.index(number) for number in (family, kind, proto)]
        with self._lock:
            if self._closed:
                raise StaleHandleError("the node of this socket is gone")
            fd = self._sandbox.asking.ask({"socket": (self.ns, *numbers)})
            with allowed():
                made = socket.socket(family, kind, proto, fileno=fd)
            self._sockets.add(made)
        return made

    def index_of(self, interface: str) -> int:
        """Return the kernel's number of an interface of the node (netdevice(7)). Raises `OSError`."""
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM, 0) as sock:
            answer = fcntl.ioctl(sock, _SIOCGIFINDEX, struct.pack("16s24x", interface.encode()))
        return int(struct.unpack_from("i", answer, 16)[0])

    def owns(self, fd: int) -> bool:
        """Return True for a socket of this node."""
        return _namespace_of(fd) == self.namespace

    def adopt(self, child: subprocess.Popen[Any]) -> None:
        """Note a process of the node that is a child of the program."""
        children = self._sandbox.children
        children.difference_update([each for each in list(children) if each.poll() is not None])
        children.add(child)

    def show(self, userland: Userland) -> None:
        """Show the node's processes the names that it has now."""
        if self._userland != userland:
            self._userland = userland
            self.agent.request_now({"show": {"ns": self.ns, "userland": userland.message()}})

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
    """Return what identifies the network namespace of a socket; None for a namespace that is not ours."""
    try:
        ns = fcntl.ioctl(fd, _SIOCGSKNS)
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
    closes it himself, and must not then hit a descriptor that was opened in between.
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
