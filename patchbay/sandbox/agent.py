"""The agent: process 1 of a lab, which owns its namespaces and does what must happen inside them.

Started by its path (`python -I -S agent.py CHANNEL PIDFD PATH`) in the program's own namespaces, it
leaves them for new ones. Standard library only, one thread. When it dies, for any reason, the
kernel ends every process of the lab, and with the last socket every namespace and rule.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import socket
import sys
import traceback
from collections import deque
from typing import Any

if __package__:
    from patchbay.sandbox import kernel, wire
    from patchbay.sandbox.lanes import TOOL_ENV, Lane, Request
    from patchbay.sandbox.server import Conversation, Server
else:  # started by its path, without site-packages
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import kernel  # type: ignore[import-not-found, no-redef]
    import wire  # type: ignore[import-not-found, no-redef]
    from lanes import TOOL_ENV, Lane, Request  # type: ignore[import-not-found, no-redef]
    from server import Conversation, Server  # type: ignore[import-not-found, no-redef]

__all__ = ["main"]

# Tools at once: namespaces gain nothing from more (RTNL is one lock), their configuration does.
_AT_ONCE = max(2, (os.cpu_count() or 2) + 1)
_NAMESPACES_A_PROC = 50


def main() -> None:
    """Enter new namespaces, wait for the program to map ids, and become process 1 in there."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    program = int(sys.argv[2])
    TOOL_ENV["PATH"] = sys.argv[3]
    os.set_inheritable(channel.fileno(), False)
    os.set_inheritable(program, False)
    flags = kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID
    _or_report(channel, "unshare", lambda: kernel.unshare(flags))
    wire.send(channel, {"unshared": os.getpid()})
    if wire.receive(channel)[0] is None:
        return
    child = os.fork()
    if child == 0:
        kernel.die_with_parent(signal.SIGKILL)
        _or_report(channel, "mount", _prepare_mounts)
        _raise_limit()
        agent = Agent(channel, program)
        wire.send(channel, {"up": True})
        agent.serve()
    channel.close()
    os.close(program)
    os.waitpid(child, 0)


def _or_report(channel: socket.socket, stage: str, step: Any) -> None:
    try:
        step()
    except OSError as error:
        wire.send(channel, {"failed": stage, "errno": error.errno, "error": str(error)})
        os._exit(1)


def _raise_limit() -> None:
    # `ip` keeps a descriptor for each namespace that a batch names.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _prepare_mounts() -> None:
    kernel.make_private()
    # Refused in a container with parts of /proc masked: the outer one works, and shows more.
    with contextlib.suppress(PermissionError):
        kernel.mount("proc", "/proc", "proc")
    _private_run()
    os.makedirs("/run/netns")
    os.makedirs("/run/patchbay/proc")
    _own_etc_files()


def _private_run() -> None:
    """A /run of the lab's own for `ip netns`, with everything else that was there bound back into it."""
    old = os.open("/run", os.O_PATH | os.O_DIRECTORY)
    entries = sorted(os.listdir("/run"))
    kernel.mount("tmpfs", "/run", "tmpfs", options="mode=755")
    for name in entries:
        source, target = f"/proc/self/fd/{old}/{name}", f"/run/{name}"
        if name in ("netns", "patchbay"):
            continue
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
            continue
        if os.path.isdir(source):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        kernel.bind(source, target)
    os.close(old)


def _own_etc_files() -> None:
    """The lab's hosts and resolv.conf over those in /etc, which need not exist."""
    names = ("hosts", "resolv.conf")
    if not all(os.path.isfile(f"/etc/{name}") for name in names):
        _writable_etc(names)
    for name in names:
        with open(f"/run/patchbay/{name}", "w"):
            kernel.bind(f"/run/patchbay/{name}", f"/etc/{name}")


def _writable_etc(names: tuple[str, ...]) -> None:
    """A layer over /etc in which the missing files can be put."""
    os.makedirs("/run/patchbay/etc/upper")
    os.makedirs("/run/patchbay/etc/work")
    layers = "lowerdir=/etc,upperdir=/run/patchbay/etc/upper,workdir=/run/patchbay/etc/work"
    kernel.mount("overlay", "/etc", "overlay", options=layers)
    for name in names:
        path = f"/etc/{name}"
        if not os.path.isfile(path):
            if os.path.lexists(path):
                os.unlink(path)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


class Agent(Server):
    """The server that can also run tools in every namespace, and fork workers into them."""

    def __init__(self, channel: socket.socket, program: int) -> None:
        super().__init__(channel)
        # The channel may be held open by a fork of the program; its own end is told by its pidfd.
        self.watch(program, self.quit)
        self.operations |= {"lanes": self.lanes, "worker": self.worker, "helper": self.helper}
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._waiting: deque[Lane] = deque()
        self._busy: set[str] = set()
        self._running = 0
        self._proc = os.open("/proc", os.O_PATH)
        self._proc_namespaces: set[str] = set()

    def worker(self, conversation: Conversation, request: dict[str, Any], _fds: list[int]) -> None:
        """Fork a worker into a node; the conversation becomes its channel."""
        channel = conversation.sock

        def work() -> None:
            kernel.die_with_parent(signal.SIGKILL)
            _or_report(channel, "worker", lambda: _enter_node(request["ns"]))
            worker = Server(channel)
            _or_report(channel, "worker", lambda: worker.show_files(request["shown"]))
            wire.send(channel, {"up": True})
            worker.serve()

        self.forget(channel)
        self.children[self.fork(work)] = lambda _: None
        channel.close()

    def helper(self, conversation: Conversation, request: dict[str, Any], _fds: list[int]) -> None:
        """Fork a helper into a namespace: the `main` of a module that needs the standard library alone.

        The conversation becomes the helper's, and ends with it.
        """
        channel = conversation.sock
        module = _load(request["root"], request["module"])

        def work() -> None:
            kernel.die_with_parent(signal.SIGKILL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _or_report(channel, "helper", lambda: self.enter(request["ns"]))
            # What `ps` and `pgrep` know it by.
            with open("/proc/self/comm", "w") as comm:
                comm.write(request["module"].rpartition(".")[2])
            try:
                module.main(request["args"], channel)
            except Exception:
                wire.send(channel, {"died": traceback.format_exc()})

        self.forget(channel)
        self.children[self.fork(work)] = lambda _: None
        channel.close()

    # -- lanes: the steps of one lane after another, several lanes side by side

    def lanes(self, conversation: Conversation, request: list[Any], _fds: list[int]) -> None:
        """Run lanes of steps; reply once with the results of each."""
        Request(conversation, [Lane(self, *lane) for lane in request], self)

    def enqueue(self, lanes: list[Lane]) -> None:
        self._waiting.extend(lanes)
        self._start_more()

    def finished(self, lane: Lane) -> None:
        self._running -= 1
        self._busy.discard(lane.key)
        self._start_more()

    def _start_more(self) -> None:
        """Start what may run: lanes with one key keep their order, others overtake them."""
        held_back: deque[Lane] = deque()
        blocked = set(self._busy)
        while self._waiting and self._running < _AT_ONCE:
            lane = self._waiting.popleft()
            if lane.key in blocked:
                held_back.append(lane)
                continue
            blocked.add(lane.key)
            self._busy.add(lane.key)
            self._running += 1
            lane.step()
        self._waiting.extendleft(reversed(held_back))

    def proc(self, ns: str) -> int:
        """A folder like /proc in which few namespaces' settings have been opened.

        An instance of proc keeps each namespace's `ipv6` folder in one chain of its cache: with 1000 of
        them opening one takes 200 µs, in a fresh instance next to nothing.
        """
        if ns not in self._proc_namespaces:
            self._proc_namespaces.add(ns)
            if len(self._proc_namespaces) % _NAMESPACES_A_PROC == 0:
                self._proc = _fresh_proc() or self._proc
        return self._proc

    def enter(self, ns: str | None) -> None:
        if ns is None:
            kernel.setns(self._home, kernel.CLONE_NEWNET)
            return
        fd = os.open(f"/run/netns/{ns}", os.O_RDONLY)
        try:
            kernel.setns(fd, kernel.CLONE_NEWNET)
        finally:
            os.close(fd)


def _load(root: str, name: str) -> Any:
    """The module of that name below the folder `root`; once here, so that every fork has it already."""
    if name in sys.modules:
        return sys.modules[name]
    sys.path.append(root)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(root)


def _fresh_proc() -> int | None:
    """Another instance of proc, kept by its descriptor alone; None where that is refused."""
    try:
        kernel.mount("proc", "/run/patchbay/proc", "proc")
    except OSError:
        return None
    fd = os.open("/run/patchbay/proc", os.O_PATH)
    kernel.unmount("/run/patchbay/proc")
    return fd


def _enter_node(ns: str) -> None:
    """The node's network, and a view of /sys and /etc to go with it."""
    fd = os.open(f"/run/netns/{ns}", os.O_RDONLY)
    kernel.setns(fd, kernel.CLONE_NEWNET)
    os.close(fd)
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.make_private()
    _own_sysfs()


def _own_sysfs() -> None:
    """/sys shows the network of whoever mounted it; control groups stay as they were."""
    groups = os.open("/sys/fs/cgroup", os.O_PATH) if os.path.isdir("/sys/fs/cgroup") else None
    try:
        kernel.mount("sysfs", "/sys", "sysfs")
        if groups is not None:
            kernel.bind(f"/proc/self/fd/{groups}", "/sys/fs/cgroup")
    except OSError:
        pass  # a container with parts of /sys masked: the old view stays; `patchbay doctor` says so
    finally:
        if groups is not None:
            os.close(groups)


if __name__ == "__main__":
    main()
