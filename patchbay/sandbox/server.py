"""What the agent and the workers have in common: one loop that starts processes and makes sockets.

Standard library only. The agent is process 1 of the lab; a worker is a fork of it that has
entered a node's namespaces. Both wait on one epoll for messages and for children that end.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

if __package__:
    from patchbay.sandbox import kernel, wire
else:  # started by its path, without site-packages
    import kernel  # type: ignore[import-not-found, no-redef]
    import wire  # type: ignore[import-not-found, no-redef]

__all__ = ["Conversation", "Server", "find_program", "find_tool"]

_CATCHABLE = [s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)]


class Conversation:
    """One side of a conversation: the request's socket, and the process it may be about."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self.pid: int | None = None

    def reply(self, message: wire.Message, fds: tuple[int, ...] = ()) -> None:
        if self.sock.fileno() < 0:
            return  # ended from the other side: nobody is left to be told
        try:
            wire.send(self.sock, message, fds)
        except (BrokenPipeError, ConnectionResetError):
            self.end()

    def readable(self) -> None:
        message, fds = wire.receive(self.sock)
        if message is None:
            self.end()
            return
        try:
            self.server.request(self, message, fds)
        except OSError as error:
            what = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
            self.reply({"errno": error.errno or errno.EIO, "error": what or str(error)})
        finally:
            for fd in fds:
                os.close(fd)

    def end(self) -> None:
        """The other side is done with it: so is its process, with its whole process group."""
        if self.sock.fileno() < 0:
            return
        self.server.forget(self.sock)
        self.sock.close()
        if self.pid is not None:
            os.killpg(self.pid, signal.SIGKILL)


class Server:
    """The loop. `operations` by the first key of a message."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.children: dict[int, Callable[[int], None]] = {}
        self.operations: dict[str, Callable[[Conversation, Any, list[int]], None]] = {
            "spawn": self.spawn,
            "signal": self.signal,
            "socket": self.socket,
            "getaddrinfo": self.getaddrinfo,
            "show": self.show,
        }
        self._shown: dict[str, str] = {}
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._wake_in, self._wake_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        self.watch(self._wake_in, self._reap)
        self.watch(channel.fileno(), self._accept)

    def serve(self) -> None:
        """Until the channel ends."""
        while True:
            for fd, _ in self._epoll.poll():
                if ready := self._ready.get(fd):
                    ready()

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        self._epoll.register(fd, select.EPOLLIN)
        self._ready[fd] = ready

    def forget(self, sock: socket.socket) -> None:
        if self._ready.pop(sock.fileno(), None):
            self._epoll.unregister(sock.fileno())

    def quit(self) -> None:
        """End at once, with every process started from here. For process 1 the kernel does the same."""
        for pid in self.children:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        os._exit(0)

    def request(self, conversation: Conversation, message: wire.Message, fds: list[int]) -> None:
        name = next(iter(message))
        self.operations[name](conversation, message[name], fds)

    def _accept(self) -> None:
        message, fds = wire.receive(self.channel)
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

    # -- operations

    def spawn(self, conversation: Conversation, request: dict[str, Any], fds: list[int]) -> None:
        """Start a process with the given descriptors; tell its pid now and its wait status later."""
        actions: list[tuple[Any, ...]] = []
        if request["tty"]:
            # The first terminal that a session leader opens becomes its controlling one.
            actions.append((os.POSIX_SPAWN_OPEN, 0, request["tty"], os.O_RDWR, 0))
            actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
        # Descriptors arrive above those that any command is given, so none is overwritten.
        actions += [
            (os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(fds, request["targets"], strict=True)
        ]
        argv, environ = request["argv"], request["env"]
        os.chdir(request["cwd"])
        try:
            program = find_program(argv[0], environ.get("PATH", os.defpath))
            pid = os.posix_spawn(
                program,
                argv,
                environ,
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=_CATCHABLE,
            )
        finally:
            os.chdir("/")
        conversation.pid = pid

        def ended(status: int) -> None:
            conversation.pid = None
            conversation.reply({"status": status})

        self.children[pid] = ended
        pidfd = os.pidfd_open(pid)
        try:
            conversation.reply({"pid": pid}, (pidfd,))
        finally:
            os.close(pidfd)

    def signal(self, conversation: Conversation, request: list[int], _fds: list[int]) -> None:
        """[number, whether to send it to the whole process group]."""
        signum, group = request
        if conversation.pid is not None:
            (os.killpg if group else os.kill)(conversation.pid, signum)

    def socket(self, conversation: Conversation, request: list[int], _fds: list[int]) -> None:
        """A socket of this network namespace, which it keeps wherever it is passed."""
        family, kind, proto = request
        with socket.socket(family, kind, proto) as made:
            conversation.reply({"socket": True}, (made.fileno(),))

    def getaddrinfo(self, conversation: Conversation, request: list[Any], _fds: list[int]) -> None:
        """A look-up as the node's processes see it; in a process of its own, as it may wait for long."""

        def answer() -> None:
            try:
                found = socket.getaddrinfo(*request)
                conversation.reply({"found": found})
            except socket.gaierror as error:
                conversation.reply({"gaierror": [error.errno, error.strerror]})

        self.children[self.fork(answer)] = lambda _: None

    def show(self, conversation: Conversation, request: dict[str, str], _fds: list[int]) -> None:
        """Show files at other places (target: source), and no others, to every process of the node."""
        self.show_files(request)
        conversation.reply({"shown": True})

    def show_files(self, files: dict[str, str]) -> None:
        for target in self._shown.keys() - files.keys():
            kernel.unmount(target)
        for target in files.keys() - self._shown.keys():
            kernel.bind(files[target], target)
        self._shown = files

    def fork(self, run: Callable[[], None]) -> int:
        """Run a function in a child, which ends with it."""
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            os.setsid()
            run()
            status = 0
        except Exception:
            # Goes to the agent's stderr, which the program shows when it misses an answer.
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)


@functools.lru_cache(maxsize=64)
def find_tool(name: str, path: str) -> str:
    """The same for what is started a thousand times."""
    return find_program(name, path)


def find_program(name: str, path: str) -> str:
    """The file that `name` means on `path`."""
    if "/" in name:
        return name
    for folder in path.split(os.pathsep):
        file = os.path.join(folder or ".", name)
        if os.access(file, os.X_OK) and not os.path.isdir(file):
            return file
    raise FileNotFoundError(2, f"no such program on PATH: {name}")
