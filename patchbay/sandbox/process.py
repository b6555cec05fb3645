"""Processes of a node, in the shape of trio's own."""

from __future__ import annotations

import contextlib
import errno
import inspect
import operator
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import trio

from patchbay.errors import PatchbayError
from patchbay.sandbox.inside import wire
from patchbay.sandbox.lines import Lines
from patchbay.sandbox.sandbox import Channel
from patchbay.sandbox.spawn import Spawn
from patchbay.sandbox.view import NodeView, in_node

__all__ = ["NodePopen", "NodeProcess", "spawn"]

# Seconds that a process has after SIGTERM to end by itself.
GRACE = 2.0


class NodeProcess:
    """A process in a node. In shape a `trio.Process`; ended when its `open_process` block is left.

    `pid` is its number inside the lab; on the host it has another. `stdin`, `stdout` and `stderr`
    are trio streams where `subprocess.PIPE` was asked for, else None.
    """

    def __init__(self, args: Sequence[str], pid: int, conversation: socket.socket, channel: Channel) -> None:
        self.args = list(args)
        self.pid = pid
        self.stdin: trio.abc.SendStream | None = None
        self.stdout: trio.abc.ReceiveStream | None = None
        self.stderr: trio.abc.ReceiveStream | None = None
        self._returncode: int | None = None
        self._conversation = conversation
        self._channel = channel
        self._waiting = trio.Lock()
        self._lost: PatchbayError | None = None
        self._lines: Lines | None = None

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"exited {self.returncode}"
        return f"<NodeProcess {self.args!r} pid {self.pid}, {state}>"

    @property
    def returncode(self) -> int | None:
        """Return the exit status: negative for the signal that killed the process, None while it runs."""
        if self._returncode is None and self._conversation.fileno() >= 0:
            try:
                message, _ = wire.receive(self._conversation)
            except BlockingIOError:
                return None
            self._ended(message)
        return self._returncode

    def _ended(self, message: wire.Message | None) -> None:
        if message is None:
            # The agent reports every end, unless the agent itself has ended. Then the kernel kills what it
            # started.
            self._lost = self._channel.gone()
        status = message["status"] if message else int(signal.SIGKILL)
        self._returncode = os.waitstatus_to_exitcode(status)
        self._conversation.close()

    async def wait(self) -> int:
        """Wait for the end of the process and return its exit status.

        Raises `LabDiedError` or `LabClosedError` if the process ended with the lab.
        """
        code = await self._wait()
        if self._lost:
            raise self._lost
        return code

    async def _wait(self) -> int:
        async with self._waiting:
            while (code := self.returncode) is None:
                await trio.lowlevel.wait_readable(self._conversation)
        return code

    def lines(self) -> AsyncIterator[str]:
        """Iterate over the lines of stdout, without line ends, until nothing has stdout open any more.

        Text is decoded as UTF-8, with U+FFFD for other bytes. An iteration that was left is continued by the
        next call. Raises `ValueError` unless the process was started with `stdout=subprocess.PIPE`.
        """
        if self.stdout is None:
            raise ValueError("lines() reads a pipe: start the process with stdout=subprocess.PIPE")
        self._lines = self._lines or Lines(self.stdout)
        return self._lines

    def send_signal(self, signum: int) -> None:
        """Send a signal to the process, unless it has ended. Raises `OSError` for an unknown number."""
        number = operator.index(signum)
        if not 0 <= number < signal.NSIG:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._signal(number, group=False)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _signal(self, signum: int, *, group: bool) -> None:
        if self.returncode is None:
            # It may end, and the lab with it, before the signal is on its way.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                wire.send(self._conversation, {"signal": [int(signum), group]})

    async def end(self) -> None:
        """Send SIGTERM to the process and its group, and SIGKILL 2 s later to those that still run."""
        with trio.CancelScope(shield=True):
            try:
                self._signal(signal.SIGTERM, group=True)
                with trio.move_on_after(GRACE):
                    await self._wait()
                if self.returncode is None:
                    self._signal(signal.SIGKILL, group=True)
                    await self._wait()
            finally:
                self.close()

    def close(self) -> None:
        """Close the conversation and the streams. The agent kills a process that still runs."""
        self._conversation.close()
        for stream in (self.stdin, self.stdout, self.stderr):
            if isinstance(stream, trio.lowlevel.FdStream):
                _close_now(stream)


def _close_now(stream: trio.lowlevel.FdStream) -> None:
    stream._fd_holder.close()


async def spawn(view: NodeView, what: Spawn, stdin: Any, stdout: Any, stderr: Any) -> NodeProcess:
    """Start a process. The three streams are as for `subprocess.Popen`."""
    with _Streams(stdin, stdout, stderr) as streams:
        conversation = view.agent.converse()
        try:
            view.agent.send(conversation, {"spawn": what.request(view.ns, (0, 1, 2))}, streams.theirs)
            message, _ = await view.agent.answer(conversation)
        except OSError as error:
            conversation.close()
            raise in_node(view.node, error) from None
        except BaseException:
            conversation.close()
            raise
        process = NodeProcess(what.args, message["pid"], conversation, view.agent)
        process.stdin, process.stdout, process.stderr = streams.take()
        return process


class _Streams:
    """The descriptors for a new process, and the program's ends of its pipes."""

    def __init__(self, stdin: Any, stdout: Any, stderr: Any) -> None:
        self._close_after: list[int] = []
        self._mine: list[int | None] = []
        self.theirs: tuple[int, ...] = ()
        try:
            for number, wish in enumerate((stdin, stdout, stderr)):
                self.theirs += (self._open(number, wish),)
        except BaseException:
            self.__exit__()
            raise

    def _open(self, number: int, wish: Any) -> int:
        self._mine.append(None)
        if wish is None:
            return number
        if wish == subprocess.PIPE:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            theirs, mine = (reader, writer) if number == 0 else (writer, reader)
            self._close_after.append(theirs)
            self._mine[number] = mine
            return theirs
        if wish == subprocess.STDOUT:
            return self.theirs[1]
        if wish == subprocess.DEVNULL:
            null = os.open(os.devnull, os.O_RDWR)
            self._close_after.append(null)
            return null
        fileno: int = wish if isinstance(wish, int) else wish.fileno()
        return fileno

    def take(self) -> list[trio.lowlevel.FdStream | None]:
        mine, self._mine = self._mine, []
        return [trio.lowlevel.FdStream(fd) if fd is not None else None for fd in mine]

    def __enter__(self) -> _Streams:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (*self._close_after, *(fd for fd in self._mine if fd is not None)):
            os.close(fd)


# Options of `subprocess.Popen` that a process in a node cannot have, or has by arguments of their own.
_REFUSED = (
    "executable",
    "preexec_fn",
    "shell",
    "startupinfo",
    "creationflags",
    "group",
    "extra_groups",
    "env",
)


class NodePopen(subprocess.Popen[Any]):
    """A `subprocess.Popen` in a node: a true child of the program, started for it by the agent's parent.

    `options` are those of `Popen`. Raises `FileNotFoundError` and the like as `Popen` does, and `TypeError`
    for options that a process in a node cannot have.
    """

    def __init__(self, view: NodeView, what: Spawn, options: Mapping[str, Any]) -> None:
        if refused := [name for name in _REFUSED if name in options]:
            raise TypeError(f"popen() in a node takes no {refused[0]}")
        self._view = view
        self._what = what
        super().__init__(what.args, **options)

    def _execute_child(self, *args: Any) -> None:
        """Start the process, in place of the method that forks this program.

        It is not public. In Python 3.11 to 3.14 it is the one place in which `Popen` starts something, called
        with the options of `__init__` and with the child's ends of the pipes, -1 where there is none.
        """
        names = inspect.signature(subprocess.Popen._execute_child).parameters  # type: ignore[attr-defined]
        given = dict(zip(list(names)[1:], args, strict=True))
        streams = [given["p2cread"], given["c2pwrite"], given["errwrite"]]
        try:
            self.pid = self._start([fd if fd >= 0 else n for n, fd in enumerate(streams)], given)
            self._child_created = True
            self._view.adopt(self)
        finally:
            pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
            self._close_pipe_fds(*(given[pipe] for pipe in pipes))  # type: ignore[attr-defined]

    def _start(self, streams: Sequence[int], given: Mapping[str, Any]) -> int:
        names = ("start_new_session", "process_group", "umask")
        options = {name: given[name] for name in names}
        passed = list(given["pass_fds"])
        request = self._what.request(self._view.ns, [0, 1, 2, *passed], options=options)
        with self._view.agent.converse() as conversation:
            self._view.agent.send(conversation, {"popen": request}, (*streams, *passed))
            try:
                return _started(self._view.agent, conversation)
            except OSError as error:
                raise in_node(self._view.node, error) from None


def _started(agent: Channel, conversation: socket.socket) -> int:
    """Return the id of a child of this program, once it has become what it was meant to be."""
    conversation.setblocking(True)
    pid, error = -1, None
    # The id and an error come from two processes, in any order; exec ends the conversation.
    while (message := wire.receive(conversation)[0]) is not None:
        if "pid" in message:
            pid = message["pid"]
        else:
            error = wire.error_of(message)
    if error and pid >= 0:
        os.waitpid(pid, 0)
    if error:
        raise error
    if pid < 0:
        raise agent.gone()
    return pid
