"""The program's side of a lab's agent: starting it, asking it, ending it."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from patchbay.errors import HostError, LabClosedError, LabDiedError, PatchbayError
from patchbay.sandbox import agent as agent_program
from patchbay.sandbox import host, wire

__all__ = ["ANSWER_WITHIN", "Channel", "Sandbox", "patient"]

# No answer that the program waits for on its event loop takes longer than milliseconds.
ANSWER_WITHIN = 1.0
# For what starts only once: an interpreter on a loaded machine.
_START_WITHIN = 30.0
_END_WITHIN = 2.0


def patient(sock: socket.socket, within: float) -> None:
    """Let the kernel wait, so many seconds, rather than Python: that asks it twice for each message."""
    sock.setblocking(True)
    seconds, fraction = divmod(within, 1)
    sock.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), int(fraction * 1e6))
    )


class Channel:
    """The way to an agent or a worker: opens conversations."""

    def __init__(self, sock: socket.socket, owner: Sandbox) -> None:
        self._sock = sock
        self._owner = owner

    def converse(self) -> socket.socket:
        """A new conversation; non-blocking, and ended by closing it."""
        mine, theirs = wire.pair()
        with theirs:
            try:
                wire.send(self._sock, {"conversation": True}, (theirs.fileno(),))
            except OSError:
                mine.close()
                raise self.gone() from None
        mine.setblocking(False)
        return mine

    async def request(self, message: wire.Message, fds: tuple[int, ...] = ()) -> wire.Message:
        """Ask once and wait for the answer."""
        with self.converse() as sock:
            wire.send(sock, message, fds)
            return (await self.answer(sock))[0]

    async def answer(self, sock: socket.socket) -> tuple[wire.Message, list[int]]:
        """The next message of a conversation. Raises `OSError` where the other side reports one."""
        await trio.lowlevel.wait_readable(sock)
        return self._checked(*wire.receive(sock))

    def request_now(
        self, message: wire.Message, within: float = ANSWER_WITHIN
    ) -> tuple[wire.Message, list[int]]:
        """Ask and wait without trio, for what is answered at once."""
        with self.converse() as sock:
            wire.send(sock, message)
            return self.answer_now(sock, within)

    def answer_now(
        self, sock: socket.socket, within: float = ANSWER_WITHIN
    ) -> tuple[wire.Message, list[int]]:
        patient(sock, within)
        return self.next_answer(sock)

    def next_answer(self, sock: socket.socket) -> tuple[wire.Message, list[int]]:
        """The next message of a conversation that was made `patient`."""
        try:
            return self._checked(*wire.receive(sock))
        except BlockingIOError:
            raise LabDiedError("the lab's agent gives no answer") from None

    def _checked(self, message: wire.Message | None, fds: list[int]) -> tuple[wire.Message, list[int]]:
        if message is None:
            raise self.gone()
        if "errno" in message:
            raise OSError(message["errno"], message["error"])
        return message, fds

    @property
    def alive(self) -> bool:
        """Whether the lab's agent is there."""
        return self._owner.alive

    def gone(self) -> PatchbayError:
        """The error of who finds that it is not."""
        return self._owner.gone()

    def close(self) -> None:
        self._sock.close()


class Sandbox:
    """A lab's namespaces, held by its agent process."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket, stderr: int) -> None:
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self._stderr = stderr
        self._closing = False
        self.agent = Channel(sock, self)
        # How many user ids the lab has: 1, or enough for programs that change theirs.
        self.ids = 1

    @property
    def pid(self) -> int:
        """The agent's process id, in the program's own numbers."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        if self._closing:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    @classmethod
    async def start(cls) -> Sandbox:
        """Start an agent in new namespaces. Raises `HostError` with everything that is in the way."""
        lacks = host.lacks()
        if lacks:
            raise HostError(lacks)
        mine, theirs = wire.pair()
        stderr = os.memfd_create("patchbay-agent-stderr")
        with theirs:
            process = _spawn_agent(theirs, stderr)
        sandbox = cls(process, mine, stderr)
        try:
            with trio.fail_after(_START_WITHIN):
                mine.setblocking(False)
                await sandbox._handshake(mine)
        except BaseException:
            with trio.CancelScope(shield=True):
                await sandbox.close()
            raise
        mine.setblocking(True)
        return sandbox

    async def _handshake(self, sock: socket.socket) -> None:
        await self._expect(sock, "unshared")
        self.ids = await _map_ids(self.pid)
        wire.send(sock, {"mapped": True})
        await self._expect(sock, "up")

    async def _expect(self, sock: socket.socket, key: str) -> None:
        await trio.lowlevel.wait_readable(sock)
        message, _ = wire.receive(sock)
        if message is None:
            raise LabDiedError(f"the lab's agent did not start:\n{self._last_words()}")
        if "failed" in message:
            raise HostError(host.namespace_lacks(message["failed"], message["error"]))
        assert key in message, message

    def gone(self) -> LabClosedError | LabDiedError:
        """The error of who uses an agent that does not answer any more."""
        if self._closing:
            return LabClosedError("the lab is closed: it lives as long as its `async with` block")
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
        # A copy for each who waits: trio lets only one task wait for a descriptor.
        pidfd = os.dup(self._pidfd)
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)

    async def close(self) -> None:
        """End the agent, and with it everything in the lab. Does not wait longer than a few seconds."""
        self._closing = True
        self.agent.close()
        try:
            with trio.move_on_after(_END_WITHIN):
                await self._ended()
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._pidfd)
            os.close(self._stderr)
            self._stderr = -1


def _spawn_agent(channel: socket.socket, stderr: int) -> subprocess.Popen[bytes]:
    pidfd = os.pidfd_open(os.getpid())
    program = str(Path(agent_program.__file__).resolve())
    fds = [channel.fileno(), pidfd]
    try:
        # A session of its own, so that Ctrl-C reaches the program first and its cleanup finds a lab.
        return subprocess.Popen(
            [sys.executable, "-I", "-S", program, *map(str, fds), host.tool_path()],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            cwd="/",
            pass_fds=fds,
            start_new_session=True,
        )
    finally:
        os.close(pidfd)


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
    granted = host.subordinate_ids(kind)
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
