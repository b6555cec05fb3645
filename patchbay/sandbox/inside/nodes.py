"""Entering and leaving the namespaces of nodes. Standard library only.

The agent has one thread and does one thing at a time, so it enters a node for as long as it takes to make a
socket or to start a process there, and leaves the node again, which takes some 10 µs. The socket or process
stays in the node.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any

from patchbay.sandbox.inside import kernel
from patchbay.sandbox.inside.defaults import set_defaults
from patchbay.sandbox.inside.machine import MACHINE, Machine
from patchbay.sandbox.inside.mounts import fresh_proc
from patchbay.sandbox.inside.server import Server

__all__ = ["Nodes"]

_NAMESPACES_A_PROC = 50
# Where the agent returns to, in this order: the network last, because mounts decide what a path means.
_OWN = {
    "mnt": kernel.CLONE_NEWNS,
    "uts": kernel.CLONE_NEWUTS,
    "ipc": kernel.CLONE_NEWIPC,
    "pid": kernel.CLONE_NEWPID,
    "net": kernel.CLONE_NEWNET,
}


class _Node:
    """A node in which there is a socket or a process. Its machine is started with the first process."""

    def __init__(self, ns: str, userland: dict[str, Any]) -> None:
        self.ns = ns
        self.userland = userland
        self.network = os.open(f"/run/netns/{ns}", os.O_RDONLY)
        self.machine: Machine | None = None

    def end(self) -> None:
        os.close(self.network)
        if self.machine:
            self.machine.end()


class Nodes:
    """The lab's own namespaces, and the nodes that are used."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._own = {name: os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in _OWN}
        self._nodes: dict[str, _Node] = {}
        self._proc = os.open("/proc", os.O_PATH)
        self._proc_namespaces: set[str] = set()

    @contextlib.contextmanager
    def network_of(self, ns: str | None) -> Iterator[None]:
        """Be in a network namespace alone; None is the lab's own."""
        if ns is None:
            yield
            return
        fd = os.open(f"/run/netns/{ns}", os.O_RDONLY)
        try:
            kernel.setns(fd, kernel.CLONE_NEWNET)
            yield
        finally:
            self._return("net")
            os.close(fd)

    @contextlib.contextmanager
    def network_in(self, ns: str) -> Iterator[None]:
        """Be in the network alone of a node that is used."""
        try:
            kernel.setns(self._node(ns).network, kernel.CLONE_NEWNET)
            yield
        finally:
            self._return("net")

    @contextlib.contextmanager
    def inside(self, ns: str) -> Iterator[None]:
        """Be where the node's processes are; a child that is forked here is one of them. The folder is /."""
        machine = self.machine(ns)
        try:
            kernel.setns(machine.pidfd, MACHINE)
            yield
        finally:
            self._return(*_OWN)

    def machine(self, ns: str) -> Machine:
        """Return the machine of a node, in which processes can be started. Raises `OSError`."""
        node = self._node(ns)
        if node.machine is None:
            node.machine = self._start(node)
        node.machine.wait_until_up()
        return node.machine

    def _start(self, node: _Node) -> Machine:
        try:
            machine = Machine(node.ns, node.network, node.userland)
        finally:
            self._return(*_OWN)
        self._server.children[machine.pid] = lambda _: self._forget(node, machine)
        return machine

    def _forget(self, node: _Node, machine: Machine) -> None:
        """Let go of a machine whose first process has ended."""
        machine.close()
        node.machine = None

    def _node(self, ns: str) -> _Node:
        if ns not in self._nodes:
            raise FileNotFoundError(errno.ENOENT, "the node is gone")
        return self._nodes[ns]

    def open(self, ns: str, userland: dict[str, Any]) -> None:
        """Prepare a node for its first socket or process. Raises `OSError`."""
        node = self._nodes[ns] = _Node(ns, userland)
        try:
            kernel.setns(node.network, kernel.CLONE_NEWNET)
            set_defaults()
        finally:
            self._return("net")

    def show(self, ns: str, userland: dict[str, Any]) -> None:
        """Show the processes of a node the names that it has now."""
        node = self._node(ns)
        node.userland = userland
        if node.machine:
            node.machine.show(userland)

    def file_written(self, path: str) -> None:
        """Show the new content of a file with names to the nodes that have a copy of the file."""
        for node in self._nodes.values():
            if node.machine:
                node.machine.file_written(path)

    def close(self, ns: str) -> None:
        """End all processes of a node that is gone."""
        self._nodes.pop(ns).end()

    def proc(self, ns: str) -> int:
        """Return a folder like /proc in which few namespaces' settings have been opened.

        An instance of proc keeps each namespace's `ipv6` folder in one chain of its cache: with 1000 of
        them opening one takes 200 µs, in a fresh instance next to nothing.
        """
        if ns not in self._proc_namespaces:
            self._proc_namespaces.add(ns)
            if len(self._proc_namespaces) % _NAMESPACES_A_PROC == 0:
                self._proc = fresh_proc() or self._proc
        return self._proc

    def _return(self, *names: str) -> None:
        for name in names:
            kernel.setns(self._own[name], _OWN[name])
