"""The machine of a node: the namespaces that its processes share, and the first of these processes.

The first process of a pid namespace adopts orphans, and when it ends the kernel ends every other process of
the namespace. Standard library only.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from typing import Any

from patchbay.sandbox.inside import kernel
from patchbay.sandbox.inside.mounts import mount_machine, own_proc
from patchbay.sandbox.inside.programs import find_tool

__all__ = ["MACHINE", "Machine", "enter_network"]

# What a process enters to be in a node.
MACHINE = (
    kernel.CLONE_NEWNET | kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWPID
)
_FOREVER = str(2**31 - 1)  # seconds


class Machine:
    """A machine that runs. `userland` is the message form of `patchbay.plan.userland.Userland`."""

    def __init__(self, ns: str, network: int, userland: dict[str, Any]) -> None:
        """Start the machine, and stay in its namespaces: the caller leaves them. Raises `OSError`.

        This process prepares all that it can, because a fork pays for each page that it touches.
        """
        self._folder = f"/run/patchbay/machines/{ns}"
        os.makedirs(self._folder, exist_ok=True)
        self._files: dict[str, str] = {}
        self._own_names = ""
        self.show(userland)
        kernel.setns(network, kernel.CLONE_NEWNET)
        kernel.unshare(MACHINE & ~kernel.CLONE_NEWNET)
        # First, because it does its part beside this process.
        self.pid, self._ready = _first_process()
        self.pidfd = os.pidfd_open(self.pid)
        try:
            mount_machine(self._folder, userland["private"])
            socket.sethostname(userland["hostname"])
        except BaseException:
            self.end()
            raise

    def show(self, userland: dict[str, Any]) -> None:
        """Show the processes of the node these files with names, and the names of its own."""
        self._files, self._own_names = userland["files"], userland["own_names"]
        for name in self._files:
            self._copy(name)

    def file_written(self, path: str) -> None:
        """Copy a file with names again if it is shown here."""
        for name, source in self._files.items():
            if source == path:
                self._copy(name)

    def _copy(self, name: str) -> None:
        own_names = self._own_names if name == "hosts" else ""
        _write(
            f"{self._folder}/{name}", _read(self._files[name]) + own_names.encode(errors="surrogateescape")
        )

    def wait_until_up(self) -> None:
        """Wait until processes can be started. Raises `OSError` if the machine has ended."""
        if self._ready < 0:
            return
        if not os.read(self._ready, 1):
            raise ChildProcessError(errno.ECHILD, "the first process of the node has ended")
        os.close(self._ready)
        self._ready = -1

    def end(self) -> None:
        """End the machine with all its processes."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Let go of a machine that has ended."""
        for fd in (self.pidfd, self._ready):
            if fd >= 0:
                os.close(fd)


# By system calls, because these files are a few bytes, and Python's own files take longer.
def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _write(path: str, text: bytes) -> None:
    """Replace the content of a file in place, because nodes have the file itself bound over another."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.truncate(fd, os.pwrite(fd, text, 0))
    finally:
        os.close(fd)


def _first_process() -> tuple[int, int]:
    """Fork the first process of the namespaces that this process has unshared.

    Return its process id, and a descriptor from which a byte can be read when it has mounted /proc, which
    shows the processes of the namespace of whoever mounts it. Then it becomes a program that waits, because
    that takes a sixth of the memory of a Python that waits. Orphans disappear when they end, because a
    parent that ignores SIGCHLD has no zombies (sigaction(2)), and a signal that is ignored stays ignored
    after exec.
    """
    program = find_tool("sleep", os.environ.get("PATH", os.defpath))
    ready, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            own_proc()
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            os.write(writer, b"+")
            os.execve(program, ["sleep", _FOREVER], {})
        finally:
            os._exit(1)
    os.close(writer)
    return pid, ready


def enter_network(ns: str) -> None:
    """Enter a node's network for good, or until the caller enters another."""
    fd = os.open(f"/run/netns/{ns}", os.O_RDONLY)
    try:
        kernel.setns(fd, kernel.CLONE_NEWNET)
    finally:
        os.close(fd)
