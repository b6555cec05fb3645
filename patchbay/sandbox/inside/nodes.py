"""Entering and leaving the namespaces of nodes. Standard library only.

The agent has one thread and does one thing at a time, so it enters a node for as long as it takes to make a
socket or to start a process there, and leaves it again: 4 system calls, a few µs. What it made stays there.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from patchbay.sandbox.inside import kernel
from patchbay.sandbox.inside.mounts import fresh_proc, own_sysfs

__all__ = ["Nodes", "enter_network"]

_NAMESPACES_A_PROC = 50


def enter_network(ns: str) -> None:
    """Enter a node's network for good, in a process of its own."""
    fd = os.open(f"/run/netns/{ns}", os.O_RDONLY)
    kernel.setns(fd, kernel.CLONE_NEWNET)
    os.close(fd)


class View:
    """A node as its processes see it: its network, and a tree of mounts that belongs to it."""

    def __init__(self, network: int) -> None:
        self.network = network
        self.mounts = -1
        self.shown: dict[str, str] = {}

    def enter(self) -> None:
        kernel.setns(self.network, kernel.CLONE_NEWNET)
        kernel.setns(self.mounts, kernel.CLONE_NEWNS)

    @property
    def fds(self) -> tuple[int, int]:
        return self.network, self.mounts

    def close(self) -> None:
        for fd in self.fds:
            if fd >= 0:
                os.close(fd)


class Nodes:
    """The lab's own namespaces, and the views of nodes in which something runs."""

    def __init__(self) -> None:
        self._network = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        self._views: dict[str, View] = {}
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
            kernel.setns(self._network, kernel.CLONE_NEWNET)
            os.close(fd)

    @contextlib.contextmanager
    def network_in(self, ns: str) -> Iterator[None]:
        """Be in the network alone of a node that has a view."""
        view = self.view(ns)
        try:
            kernel.setns(view.network, kernel.CLONE_NEWNET)
            yield
        finally:
            kernel.setns(self._network, kernel.CLONE_NEWNET)

    @contextlib.contextmanager
    def inside(self, ns: str) -> Iterator[None]:
        """Be where the node's processes are. The folder is / after that."""
        view = self.view(ns)
        try:
            view.enter()
            yield
        finally:
            self._leave()

    def view(self, ns: str) -> View:
        """Return the node's view, which is open as long as the node is there. Raises `OSError`."""
        if ns not in self._views:
            raise FileNotFoundError(errno.ENOENT, "the node is gone")
        return self._views[ns]

    def open(self, ns: str, shown: dict[str, str]) -> None:
        """Make the view of a node, with files shown at other places (target: source)."""
        view = View(os.open(f"/run/netns/{ns}", os.O_RDONLY))
        try:
            kernel.setns(view.network, kernel.CLONE_NEWNET)
            kernel.unshare(kernel.CLONE_NEWNS)
            kernel.make_private()
            own_sysfs()
            view.mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY)
            _show(view, shown)
        except BaseException:
            view.close()
            raise
        finally:
            self._leave()
        self._views[ns] = view

    def show(self, ns: str, shown: dict[str, str]) -> None:
        """Show these files and no others to the node's processes, those that run as well."""
        with self.inside(ns):
            _show(self.view(ns), shown)

    def close(self, ns: str) -> None:
        """Let go of a node's view."""
        self._views.pop(ns).close()

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

    def _leave(self) -> None:
        kernel.setns(self._mounts, kernel.CLONE_NEWNS)
        kernel.setns(self._network, kernel.CLONE_NEWNET)


def _show(view: View, shown: dict[str, str]) -> None:
    for target in view.shown.keys() - shown.keys():
        kernel.unmount(target)
    for target in shown.keys() - view.shown.keys():
        kernel.bind(shown[target], target)
    view.shown = shown
