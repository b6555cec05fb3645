"""The program's side of a lab's agent: starting it, asking it, ending it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import threading
from typing import Any

import trio

from patchbay.errors import HostError, LabClosedError, LabDiedError, PatchbayError
from patchbay.sandbox import host
from patchbay.sandbox.accounts import subordinate_ids
from patchbay.sandbox.inside import wire
from patchbay.sandbox.interpreter import fork_agent

__all__ = ["Asking", "Channel", "Sandbox"]

# No answer that the program waits for on its event loop takes longer than milliseconds; beside others' work
# on a loaded machine it may. An agent that has died is noticed at once.
_ANSWER_WITHIN = 10.0
# For what starts only once: an interpreter on a loaded machine.
_START_WITHIN = 30.0
_END_WITHIN = 2.0


class Channel:
    """The way to an agent: opens conversations."""

    def __init__(self, sock: socket.socket, owner: Sandbox) -> None:
        self._sock = sock
        self._owner = owner

    def converse(self) -> socket.socket:
        """Open a conversation: a non-blocking socket, whose closing ends it."""
        mine, theirs = wire.pair()
        with theirs:
            try:
                wire.send(self._sock, {"conversation": True}, (theirs.fileno(),))
            except OSError:
                mine.close()
                raise self.gone() from None
        mine.setblocking(False)
        return mine

    def send(self, sock: socket.socket, message: wire.Message, fds: tuple[int, ...] = ()) -> None:
        """Send a message in a conversation. Raises the lab's own error if the other side is gone."""
        try:
            wire.send(sock, message, fds)
        except (BrokenPipeError, ConnectionResetError):
            raise self.gone() from None

    async def request(self, message: wire.Message, fds: tuple[int, ...] = ()) -> wire.Message:
        """Send a request in a conversation of its own, and wait for the answer."""
        with self.converse() as sock:
            self.send(sock, message, fds)
            return (await self.answer(sock))[0]

    async def answer(self, sock: socket.socket) -> tuple[wire.Message, list[int]]:
        """Wait for the next message of a conversation. Raises the error that the message reports."""
        await trio.lowlevel.wait_readable(sock)
        return self._checked(*wire.receive(sock))

    def request_now(self, message: wire.Message) -> wire.Message:
        """Send a request and wait without trio, for requests that take about a millisecond."""
        with self.converse() as sock:
            self.send(sock, message)
            return self.answer_now(sock)[0]

    def answer_now(self, sock: socket.socket) -> tuple[wire.Message, list[int]]:
        """Wait for the next message of a conversation without trio."""
        _let_the_kernel_wait(sock)
        return self.next_answer(sock)

    def next_answer(self, sock: socket.socket) -> tuple[wire.Message, list[int]]:
        """Wait for the next message in a conversation whose waiting is bounded already."""
        try:
            message, fds = wire.receive(sock)
        except BlockingIOError:
            raise LabDiedError(f"the lab's agent gave no answer within {_ANSWER_WITHIN:g} s") from None
        return self._checked(message, fds)

    def _checked(self, message: wire.Message | None, fds: list[int]) -> tuple[wire.Message, list[int]]:
        if message is None:
            raise self.gone()
        if error := wire.error_of(message):
            raise error
        return message, fds

    def gone(self) -> PatchbayError:
        """Return the error for a caller that finds no agent."""
        return self._owner.gone()

    def close(self) -> None:
        self._sock.close()


def _let_the_kernel_wait(sock: socket.socket) -> None:
    """Let the kernel bound the wait for messages, because Python would take two system calls for each."""
    sock.setblocking(True)
    bound = struct.pack("ll", int(_ANSWER_WITHIN), 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bound)


class Asking:
    """A conversation that is kept, for short questions from any thread, one at a time."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sock: socket.socket | None = None
        self._lock = threading.Lock()

    def ask(self, message: wire.Message) -> int:
        """Ask for a descriptor and wait for it. Raises `OSError` where the other side reports one."""
        with self._lock:
            if self._sock is None:
                self._sock = self._channel.converse()
                _let_the_kernel_wait(self._sock)
            try:
                self._channel.send(self._sock, message)
                return self._channel.next_answer(self._sock)[1][0]
            except PatchbayError:
                # The answer may still come, and must not be taken for that to another question.
                self._close()
                raise

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class Sandbox:
    """A lab's namespaces, held by its agent process, for the length of an `async with` block.

    The agent starts when this is made, and is there once `up` has returned.
    """

    def __init__(self) -> None:
        self._lacks = host.lacks()
        self._sock, theirs = wire.pair()
        self._sock.setblocking(False)
        self._stderr = os.memfd_create("patchbay-agent-stderr")
        self._closing = False
        self.agent = Channel(self._sock, self)
        self.asking = Asking(self.agent)
        # Processes in the lab that are children of this program, so that it has to wait for them.
        self.children: set[subprocess.Popen[Any]] = set()
        # The process id of the agent's parent, in the program's own numbers.
        self.pid = -1
        self._pidfd = -1
        # How many user ids the lab has: 1, or enough for programs that change theirs.
        self.ids = 1
        with theirs:
            if not self._lacks:
                try:
                    fork_agent(host.tool_path(), theirs, self._stderr)
                except OSError as error:
                    self._lacks = host.namespace_lacks("start of an interpreter", error)

    async def __aenter__(self) -> Sandbox:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            await self.close()

    @property
    def alive(self) -> bool:
        """Return whether the agent is there."""
        if self._closing:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    async def up(self) -> None:
        """Wait until the agent is there. Raises `HostError` with everything that this machine lacks."""
        if self._lacks:
            raise HostError(self._lacks)
        try:
            with trio.fail_after(_START_WITHIN):
                await self._handshake()
        except BlockingIOError as error:  # EAGAIN of fork(2): newuidmap is a process too
            raise HostError(host.namespace_lacks("start of a process", error)) from None
        # Conversations may be opened from any thread.
        self._sock.setblocking(True)

    async def _handshake(self) -> None:
        await self._meet()
        await self._expect("unshared")
        self.ids = await _map_ids(self.pid)
        wire.send(self._sock, {"mapped": True})
        await self._expect("up")

    async def _meet(self) -> None:
        """Receive the process id of the agent's parent, which is a child of this program."""
        self.pid = (await self._expect("forked"))["forked"]
        self._pidfd = os.pidfd_open(self.pid)

    async def _expect(self, key: str) -> wire.Message:
        await trio.lowlevel.wait_readable(self._sock)
        message, _ = wire.receive(self._sock)
        if message is None:
            raise LabDiedError(f"the lab's agent did not start:\n{self._last_words()}")
        if "failed" in message:
            raise HostError(host.namespace_lacks(message["failed"], wire.error_of(message)))
        assert key in message, message
        return message

    def gone(self) -> LabClosedError | LabDiedError:
        """Return the error for a caller that finds no agent: the lab is closed, or the agent died."""
        if self._closing:
            return LabClosedError()
        words = self._last_words()
        return LabDiedError("the lab's agent is gone, and the lab with it" + (f":\n{words}" if words else ""))

    def _last_words(self) -> str:
        if self._stderr < 0:
            return ""
        return os.pread(self._stderr, 100_000, 0).decode(errors="replace").strip()

    async def died(self) -> LabDiedError | None:
        """Wait for the agent's end; None if it was asked to end."""
        await self._ended()
        error = self.gone()
        return error if isinstance(error, LabDiedError) else None

    async def _ended(self) -> None:
        # A copy for each task that waits, because trio lets only one task wait for a descriptor.
        pidfd = os.dup(self._pidfd)
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)

    async def close(self) -> None:
        """End the agent, and with it everything in the lab. Does not wait longer than a few seconds."""
        if self._closing:
            return
        self._closing = True
        self.asking.close()
        try:
            with trio.move_on_after(_END_WITHIN):
                if self._pidfd < 0:
                    with contextlib.suppress(LabDiedError):
                        await self._meet()
                self.agent.close()
                for child in self.children:
                    await _reap(child)
                if self._pidfd >= 0:
                    await self._ended()
        finally:
            self.agent.close()
            self._close_now()

    def _close_now(self) -> None:
        if self._pidfd >= 0:
            # It is a child of this program, which may have been waited for by somebody else already.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
            os.close(self._pidfd)
            self._pidfd = -1
        os.close(self._stderr)
        self._stderr = -1


async def _reap(child: subprocess.Popen[Any]) -> None:
    """Wait for a child that has been killed. Until then the kernel does not let go of the lab's process 1."""
    if child.poll() is None:
        pidfd = os.pidfd_open(child.pid)
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)
        child.poll()


async def _map_ids(pid: int) -> int:
    """Give the agent's user namespace ids: all there are to root, else what the system grants the user."""
    if os.geteuid() == 0:
        return min(_map_all(pid, "uid"), _map_all(pid, "gid"))
    counts = [
        await _map_subordinate(pid, "uid", os.geteuid()),
        await _map_subordinate(pid, "gid", os.getegid()),
    ]
    if all(counts):
        return min(counts)
    # user_namespaces(7): one may always map oneself, once groups cannot be dropped any more.
    if not counts[0]:
        _write(pid, "uid_map", f"0 {os.geteuid()} 1\n")
    if not counts[1]:
        _write(pid, "setgroups", "deny")
        _write(pid, "gid_map", f"0 {os.getegid()} 1\n")
    return 1


def _map_all(pid: int, kind: str) -> int:
    with open(f"/proc/self/{kind}_map") as file:
        ranges = [(int(first), int(count)) for first, _, count in (line.split() for line in file)]
    _write(pid, f"{kind}_map", "".join(f"{first} {first} {count}\n" for first, count in ranges))
    return sum(count for _, count in ranges)


async def _map_subordinate(pid: int, kind: str, own: int) -> int:
    """Map 0 to oneself and 1… to the user's subordinate ids; 0 if there are none or they are refused."""
    granted = subordinate_ids(kind)
    tool = host.which(f"new{kind}map")
    if granted is None or tool is None:
        return 0
    first, count = granted
    argv: list[Any] = [tool, str(pid), "0", str(own), "1", "1", str(first), str(count)]
    done = await trio.run_process(argv, check=False, capture_stderr=True)
    return count + 1 if done.returncode == 0 else 0


def _write(pid: int, name: str, text: str) -> None:
    with open(f"/proc/{pid}/{name}", "w") as file:
        file.write(text)
