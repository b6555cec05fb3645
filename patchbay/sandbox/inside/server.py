"""The agent's loop: one epoll for messages, and for children that end. Standard library only."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Collection
from typing import Any

from patchbay.sandbox.inside import wire

__all__ = ["CATCHABLE", "Conversation", "Operation", "Server"]

CATCHABLE = [s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)]


class Conversation:
    """One side of a conversation: the request's socket, and the process that it may be about."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self.pid: int | None = None

    def reply(self, message: wire.Message, fds: tuple[int, ...] = ()) -> None:
        if self.sock.fileno() < 0:
            return  # ended from the other side: nobody is left to answer
        try:
            wire.send(self.sock, message, fds)
        except (BrokenPipeError, ConnectionResetError):
            self.end()

    def readable(self) -> None:
        """Do what the other side asks for. An error is the answer to this request and ends nothing else."""
        fds: list[int] = []
        try:
            message, fds = wire.receive(self.sock)
            if message is None:
                self.end()
                return
            self.server.request(self, message, fds)
        except Exception as error:
            self.reply(wire.failure(error))
        finally:
            for fd in fds:
                os.close(fd)

    def hand_over(self) -> None:
        """Close this side's descriptor: another process has it from here on."""
        self.server.forget(self.sock.fileno())
        self.sock.close()

    def end(self) -> None:
        """End the process that it is about, with its whole group, because the other side is done with it."""
        if self.sock.fileno() < 0:
            return
        self.hand_over()
        if self.pid is not None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:  # a fork that has no group of its own yet
                os.kill(self.pid, signal.SIGKILL)


Operation = Callable[[Conversation, Any, list[int]], None]


class Server:
    """The loop. `operations` are found by the first key of a message."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.children: dict[int, Callable[[int], None]] = {}
        self.operations: dict[str, Operation] = {}
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._wake_in, self._wake_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        self.watch(self._wake_in, self._reap)
        self.watch(channel.fileno(), self._accept)

    def serve(self) -> None:
        """Serve until the channel ends."""
        while True:
            for fd, _ in self._epoll.poll():
                if ready := self._ready.get(fd):
                    ready()

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        self._epoll.register(fd, select.EPOLLIN)
        self._ready[fd] = ready

    def forget(self, fd: int) -> None:
        if self._ready.pop(fd, None):
            self._epoll.unregister(fd)

    def quit(self) -> None:
        """End at once. The kernel ends every other process of the lab with its process 1."""
        os._exit(0)

    def request(self, conversation: Conversation, message: wire.Message, fds: list[int]) -> None:
        name = next(iter(message))
        self.operations[name](conversation, message[name], fds)

    def _accept(self) -> None:
        try:
            message, fds = wire.receive(self.channel)
        except OSError:
            return  # no descriptor is free for this conversation, whose end tells the other side
        if message is None:
            self.quit()
        for fd in fds:
            conversation = Conversation(self, socket.socket(fileno=fd))
            self.watch(fd, conversation.readable)

    def _reap(self) -> None:
        os.read(self._wake_in, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # Process 1 also inherits every orphan of the lab: nobody asks for these.
            if ended := self.children.pop(pid, None):
                ended(status)

    def fork(self, run: Callable[[], None], keep: Collection[int]) -> int:
        """Run a function in a child, which ends with it and has no descriptor of the agent but `keep`."""
        pid = os.fork()
        if pid:
            self.children[pid] = lambda _: None
            return pid
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _close_all_but(keep)
            os.setsid()
            run()
            status = 0
        except Exception as error:
            # Goes to the agent's stderr, which the program shows when it misses an answer.
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(status)


def _close_all_but(keep: Collection[int]) -> None:
    first = 3
    for fd in sorted(keep):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
