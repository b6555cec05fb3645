"""The agent: process 1 of a lab, which owns its namespaces and does what must happen inside them.

Forked from the prepared interpreter, it leaves the program's namespaces for new ones. It has one thread. When
it dies, for any reason, the kernel ends every process of the lab, and with the last socket every namespace
and rule. Standard library only.
"""

from __future__ import annotations

import _socket
import contextlib
import importlib
import os
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any

from patchbay.sandbox.inside import kernel, parent, service, wire
from patchbay.sandbox.inside.hubs import Hubs
from patchbay.sandbox.inside.lanes import Lanes
from patchbay.sandbox.inside.mounts import prepare_mounts
from patchbay.sandbox.inside.nodes import Nodes, enter_network
from patchbay.sandbox.inside.packages import use_packages
from patchbay.sandbox.inside.programs import start
from patchbay.sandbox.inside.server import Conversation, Server

__all__ = ["main"]


def main(request: wire.Message, program: int, channel_fd: int, stderr: int) -> None:
    """Enter new namespaces, wait for the program to map ids, and fork process 1 in there."""
    channel = socket.socket(fileno=channel_fd)
    wire.send(channel, {"forked": os.getpid()})
    for fd in (1, 2):
        os.dup2(stderr, fd)
    os.close(stderr)
    os.chdir("/")
    flags = kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID
    _or_report(channel, "unshare", lambda: kernel.unshare(flags))
    wire.send(channel, {"unshared": True})
    if wire.receive(channel)[0] is None:
        return
    mine, theirs = wire.pair()
    if os.fork() == 0:
        mine.close()
        _be_first(channel, program, theirs, request["path"])
    for each in (channel, theirs):
        each.close()
    os.close(program)
    parent.serve(mine)
    os.wait()


def _be_first(channel: socket.socket, program: int, to_parent: socket.socket, path: str) -> None:
    kernel.die_with_parent(signal.SIGKILL)
    # A session of its own, so that Ctrl-C reaches the program first and its cleanup finds a lab.
    os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _or_report(channel, "mount", prepare_mounts)
    _raise_limit()
    agent = Agent(channel, program, to_parent, path)
    wire.send(channel, {"up": True})
    agent.serve()


def _or_report(channel: socket.socket, stage: str, step: Callable[[], object]) -> None:
    try:
        step()
    except OSError as error:
        wire.send(channel, {"failed": stage, "errno": error.errno, "error": str(error)})
        os._exit(1)


def _raise_limit() -> None:
    # `ip` keeps a descriptor for each namespace that a batch names.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Agent(Server):
    """Serves the program, in the lab's namespace and in those of nodes."""

    def __init__(self, channel: socket.socket, program: int, to_parent: socket.socket, path: str) -> None:
        super().__init__(channel)
        # The channel may be held open by a fork of the program; its own end is told by its pidfd.
        self.watch(program, self.quit)
        self.nodes = Nodes()
        self.operations = {
            "lanes": Lanes(self, self.nodes, path).run,
            "view": self.view,
            "show": self.show,
            "leave": self.leave,
            "spawn": self.spawn,
            "signal": self.signal,
            "popen": self.popen,
            "socket": self.socket,
            "getaddrinfo": self.getaddrinfo,
            "calls": self.calls,
            "service": self.service,
        }
        self._parent = to_parent
        self._hubs = Hubs(self)

    # -- nodes

    def view(self, conversation: Conversation, request: dict[str, Any], _fds: list[int]) -> None:
        """Make what the processes of a node see, before the first of them."""
        self.nodes.open(request["ns"], request["shown"])
        conversation.reply({"open": True})

    def show(self, conversation: Conversation, request: dict[str, Any], _fds: list[int]) -> None:
        """Show files at other places (target: source), and no others, to every process of the node."""
        self.nodes.show(request["ns"], request["shown"])
        conversation.reply({"shown": True})

    def leave(self, conversation: Conversation, ns: str, _fds: list[int]) -> None:
        """End every process in a node that is gone, and let go of its namespaces."""
        _end_processes_in(os.fstat(self.nodes.view(ns).network).st_ino)
        self.nodes.close(ns)
        conversation.reply({"left": True})

    # -- processes

    def spawn(self, conversation: Conversation, request: dict[str, Any], fds: list[int]) -> None:
        """Start a process in a node; tell its pid now and its wait status later."""
        with self.nodes.inside(request["ns"]):
            pid = start(request, fds)
        conversation.pid = pid

        def ended(status: int) -> None:
            conversation.pid = None
            conversation.reply({"status": status})

        self.children[pid] = ended
        conversation.reply({"pid": pid})

    def signal(self, conversation: Conversation, request: list[int], _fds: list[int]) -> None:
        """Send a signal, or the same to the whole process group: [number, group]."""
        signum, group = request
        if conversation.pid is not None:
            (os.killpg if group else os.kill)(conversation.pid, signum)

    def popen(self, conversation: Conversation, request: dict[str, Any], fds: list[int]) -> None:
        """Have the agent's parent start a process that is a child of the program, and answer for itself."""
        view = self.nodes.view(request["ns"])
        wire.send(self._parent, request, (conversation.sock.fileno(), view.network, view.mounts, *fds))
        conversation.hand_over()

    # -- sockets and look-ups

    def socket(self, conversation: Conversation, request: tuple[str, int, int, int], _fds: list[int]) -> None:
        """Make a socket of a node's network, which it keeps wherever it is passed."""
        ns, family, kind, proto = request
        with self.nodes.network_in(ns):
            made = _socket.socket(family, kind, proto)
        conversation.reply({"socket": True}, (made.fileno(),))
        made.close()

    def getaddrinfo(self, conversation: Conversation, request: dict[str, Any], _fds: list[int]) -> None:
        """Look up as the node's processes would; in a process of its own, because it may wait for long."""
        view = self.nodes.view(request["ns"])

        def answer() -> None:
            view.enter()
            try:
                found = socket.getaddrinfo(*request["args"])
                conversation.reply(
                    {"found": [(int(family), int(kind), *rest) for family, kind, *rest in found]}
                )
            except socket.gaierror as error:
                conversation.reply({"gaierror": [error.errno, error.strerror]})
            except wire.Refused as error:
                conversation.reply(wire.failure(error))

        self.fork(answer, {conversation.sock.fileno(), *view.fds})

    # -- long-lived forks

    def calls(self, conversation: Conversation, request: dict[str, Any], fds: list[int]) -> None:
        """Fork the process that runs a node's calls, which ends with the conversation."""
        view = self.nodes.view(request["ns"])
        # Loaded here, so that every fork has it already.
        callworker = importlib.import_module("patchbay.sandbox.inside.callworker")

        def work() -> None:
            view.enter()
            callworker.main(request, fds)

        conversation.pid = pid = self.fork(work, {*view.fds, *fds})

        def ended(_status: int) -> None:
            conversation.pid = None

        self.children[pid] = ended
        conversation.reply({"pid": pid})

    def service(self, conversation: Conversation, request: dict[str, Any], _fds: list[int]) -> None:
        """Fork a service into a namespace. The conversation becomes the service's, and ends with it.

        `path` is the program's `sys.path` for a service that needs the program's packages; such a module is
        loaded in the fork. The others need the standard library alone, and are loaded once, here. One that
        `shares` its process with others gets a fork of its own only where those have no room.
        """
        if request["shares"]:
            self._hubs.put(conversation, request)
            return
        channel, name, path = conversation.sock, request["module"], request["path"]
        if path is None:
            importlib.import_module(name)

        def work() -> None:
            kernel.die_with_parent(signal.SIGKILL)
            _or_report(channel, "service", lambda: enter_network(request["ns"]))
            if path is not None:
                use_packages(path)
            main = importlib.import_module(name).main
            service.begin(main, name.rpartition(".")[2], request["args"], channel)

        self.fork(work, {channel.fileno()})
        conversation.hand_over()


def _end_processes_in(network: int) -> None:
    """Kill every process in a network namespace, also those that are forked meanwhile."""
    seen: set[int] = set()
    while found := {pid for pid in _processes() if _network_of(pid) == network} - seen:
        seen |= found
        for pid in found:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and name != "1"]


def _network_of(pid: int) -> int | None:
    """Return the inode of a process's network namespace; None for one that has ended, zombies too."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None
