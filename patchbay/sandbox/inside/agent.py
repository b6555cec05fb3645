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
from typing import Any, TypeVar

from patchbay.sandbox.inside import kernel, parent, service, wire
from patchbay.sandbox.inside.hubs import Hubs
from patchbay.sandbox.inside.lanes import Lanes
from patchbay.sandbox.inside.machine import MACHINE, enter_network
from patchbay.sandbox.inside.mounts import prepare_mounts
from patchbay.sandbox.inside.nodes import Nodes
from patchbay.sandbox.inside.packages import use_packages
from patchbay.sandbox.inside.ports import open_ports
from patchbay.sandbox.inside.programs import start
from patchbay.sandbox.inside.server import Conversation, Server

__all__ = ["main"]

T = TypeVar("T")

_PORTS_IN_ANSWER = 20


def main(request: wire.Message, program: int, channel_fd: int, stderr: int) -> None:
    """Enter new namespaces, wait for the program to map ids, and fork process 1 in them."""
    channel = socket.socket(fileno=channel_fd)
    wire.send(channel, {"forked": os.getpid()})
    for fd in (1, 2):
        os.dup2(stderr, fd)
    os.close(stderr)
    os.chdir("/")
    _or_report(channel, "unshare", lambda: kernel.unshare(kernel.CLONE_NEWUSER | MACHINE))
    wire.send(channel, {"unshared": True})
    if wire.receive(channel)[0] is None:
        return
    mine, theirs = wire.pair()
    proc = os.open("/proc", os.O_PATH)
    if _or_report(channel, "fork", os.fork) == 0:
        os.close(proc)
        mine.close()
        _be_first(channel, program, theirs, request["path"])
    for each in (channel, theirs):
        each.close()
    os.close(program)
    parent.serve(mine, proc)
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


def _or_report(channel: socket.socket, stage: str, step: Callable[[], T]) -> T:
    try:
        return step()
    except OSError as error:
        wire.send(channel, {"failed": stage, **wire.failure(error)})
        os._exit(1)


def _raise_limit() -> None:
    # `ip` keeps a descriptor for each namespace that a batch names.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Agent(Server):
    """Serves the program, in the lab's namespace and in those of nodes."""

    def __init__(self, channel: socket.socket, program: int, to_parent: socket.socket, path: str) -> None:
        super().__init__(channel)
        # The channel may be held open by a fork of the program; its own end shows at its pidfd.
        self.watch(program, self.quit)
        self.nodes = Nodes(self)
        self.operations = {
            "lanes": Lanes(self, self.nodes, path).run,
            "open": self.open,
            "show": self.show,
            "leave": self.leave,
            "spawn": self.spawn,
            "signal": self.signal,
            "popen": self.popen,
            "socket": self.socket,
            "ports": self.ports,
            "look-up": self.look_up,
            "calls": self.calls,
            "service": self.service,
        }
        self._parent = to_parent
        self._hubs = Hubs(self)

    # -- nodes

    def open(self, conversation: Conversation, request: dict[str, Any], _fds: list[int]) -> None:
        """Prepare a node, before its first process or socket."""
        self.nodes.open(request["ns"], request["userland"])
        conversation.reply({"open": True})

    def show(self, conversation: Conversation, request: dict[str, Any], _fds: list[int]) -> None:
        """Show the processes of a node the names that it has now."""
        self.nodes.show(request["ns"], request["userland"])
        conversation.reply({"shown": True})

    def leave(self, conversation: Conversation, ns: str, _fds: list[int]) -> None:
        """End every process of a node that is gone."""
        self.nodes.close(ns)
        conversation.reply({"left": True})

    # -- processes

    def spawn(self, conversation: Conversation, request: dict[str, Any], fds: list[int]) -> None:
        """Start a process in a node; tell its pid there now and its wait status later."""
        with self.nodes.inside(request["ns"]):
            pid = start(request, fds)
        conversation.pid = pid

        def ended(status: int) -> None:
            conversation.pid = None
            conversation.reply({"status": status})

        self.children[pid] = ended
        conversation.reply({"pid": _pid_in_node(pid)})

    def signal(self, conversation: Conversation, request: list[int], _fds: list[int]) -> None:
        """Send a signal, or the same to the whole process group: [number, group]."""
        signum, group = request
        if conversation.pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                (os.killpg if group else os.kill)(conversation.pid, signum)

    def popen(self, conversation: Conversation, request: dict[str, Any], fds: list[int]) -> None:
        """Have the agent's parent start a process that is a child of the program, and answer for itself."""
        machine = self.nodes.machine(request["ns"])
        wire.send(self._parent, request, (conversation.sock.fileno(), machine.pidfd, *fds))
        conversation.hand_over()

    # -- sockets and look-ups

    def socket(self, conversation: Conversation, request: tuple[str, int, int, int], _fds: list[int]) -> None:
        """Make a socket of a node's network, which it keeps wherever it is passed."""
        ns, family, kind, proto = request
        with self.nodes.network_in(ns):
            made = _socket.socket(family, kind, proto)
        conversation.reply({"socket": True}, (made.fileno(),))
        made.close()

    def ports(self, conversation: Conversation, request: tuple[str, str, int], _fds: list[int]) -> None:
        """Tell whether a port is open in a node, and a few that are."""
        ns, protocol, port = request
        with self.nodes.network_in(ns):
            found = open_ports(protocol)
        conversation.reply({"open": port in found, "others": sorted(found)[:_PORTS_IN_ANSWER]})

    def look_up(self, conversation: Conversation, request: dict[str, Any], _fds: list[int]) -> None:
        """Call a look-up function of `socket` as the node's processes would, in a fork that may wait."""

        def answer() -> None:
            try:
                found = getattr(socket, request["function"])(*request["args"])
                conversation.reply({"found": _plain(found)})
            except Exception as error:
                conversation.reply(wire.failure(error))

        with self.nodes.inside(request["ns"]):
            conversation.pid = self.fork(answer, {conversation.sock.fileno()})
        self.forget_pid_at_end(conversation)

    # -- long-lived forks

    def calls(self, conversation: Conversation, request: dict[str, Any], fds: list[int]) -> None:
        """Fork the process that runs a node's calls, which ends with the conversation."""
        # Loaded here, so that every fork has it already.
        callworker = importlib.import_module("patchbay.sandbox.inside.callworker")
        with self.nodes.inside(request["ns"]):
            conversation.pid = self.fork(lambda: callworker.main(request, fds), fds)
        self.forget_pid_at_end(conversation)
        conversation.reply({"pid": conversation.pid})

    def forget_pid_at_end(self, conversation: Conversation) -> None:
        """Note the end of the process that a conversation is about."""

        def ended(status: int) -> None:
            conversation.pid = None
            if status != 0:
                conversation.reply(wire.failure(ChildProcessError("the process in the node was killed")))

        assert conversation.pid is not None
        self.children[conversation.pid] = ended

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


def _pid_in_node(pid: int) -> int:
    """Return the number that a process has in its own pid namespace: the last of its numbers (proc(5))."""
    pidfd = os.pidfd_open(pid)
    file = os.open(f"/proc/self/fdinfo/{pidfd}", os.O_RDONLY)
    _, _, numbers = os.read(file, 1024).partition(b"NSpid:")
    os.close(file)
    os.close(pidfd)
    # A process that has ended already has no numbers any more.
    number = int(numbers.split()[-1]) if numbers else -1
    return number if number > 0 else pid


def _plain(found: Any) -> Any:
    """Return what a look-up found with numbers in place of enums, which cannot travel."""
    if isinstance(found, list | tuple):
        return type(found)(map(_plain, found))
    return int(found) if isinstance(found, int) else found
