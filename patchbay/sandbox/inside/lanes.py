"""Lanes: steps that the agent does one after another, several lanes side by side.

A step is a tool that it starts in a namespace, or something that it does there itself. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from patchbay.sandbox.inside import kernel, wire
from patchbay.sandbox.inside.kept import KeptIp
from patchbay.sandbox.inside.nodes import Nodes
from patchbay.sandbox.inside.programs import find_tool
from patchbay.sandbox.inside.server import CATCHABLE, Conversation, Server

__all__ = ["Lanes"]

# Tools at once: namespaces gain nothing from more (RTNL is one lock), their configuration does.
_AT_ONCE = max(2, (os.cpu_count() or 2) + 1)


class Lanes:
    """All lanes of a lab. `path` is where the tools are."""

    def __init__(self, server: Server, nodes: Nodes, path: str) -> None:
        self.server = server
        self.nodes = nodes
        self.env = {"LC_ALL": "C", "PATH": path}
        self.kept = KeptIp(server, self.env)
        self._waiting: deque[Lane] = deque()
        self._busy: set[str] = set()
        self._running = 0

    def run(self, conversation: Conversation, request: list[Any], _fds: list[int]) -> None:
        """Run lanes of steps; reply once with the results of each."""
        wanted = LaneRequest(conversation)
        wanted.lanes = [Lane(self, wanted, *lane) for lane in request]
        self._waiting.extend(wanted.lanes)
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


class LaneRequest:
    """Lanes whose results go out together. After a failure no further step begins."""

    def __init__(self, conversation: Conversation) -> None:
        self.lanes: list[Lane] = []
        self.failed = False
        self._conversation = conversation
        self._done = 0

    def lane_done(self) -> None:
        self._done += 1
        if self._done == len(self.lanes):
            self._conversation.reply({"results": [lane.results for lane in self.lanes]})


class Lane:
    """Steps in order, up to the first that fails; steps of kind "try" may fail."""

    def __init__(self, lanes: Lanes, request: LaneRequest, key: str, steps: list[list[Any]]) -> None:
        self.key = key
        self.results: list[dict[str, Any]] = []
        self._lanes = lanes
        self._request = request
        self._steps = deque(steps)
        self._started = 0.0
        self._may_fail = False

    def step(self) -> None:
        """Go on until a step has to be waited for."""
        while self._steps and not self._request.failed:
            kind, *arguments = self._steps.popleft()
            self._started = _now()
            self._may_fail = kind == "try"
            if kind in ("exec", "try"):
                if self._exec(*arguments):
                    return
            elif kind == "keep":
                if self._keep(*arguments):
                    return
            else:
                self._done(*_inline(self._lanes.nodes, kind, arguments))
        self._request.lane_done()
        self._lanes.finished(self)

    def _keep(self, text: str) -> bool:
        try:
            self._lanes.kept.run(text, self._ended)
        except OSError as error:
            self._done(127, "", f"ip: {wire.explained(error)}")
            return False
        return True

    def _exec(self, ns: str | None, argv: list[str], text: str) -> bool:
        """Start a tool; its input and output are memory files, so that nobody has to pump them."""
        if ns is None:
            self._lanes.kept.end()  # it would not see what is deleted, and keep it alive
        files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
        os.pwrite(files[0], text.encode("utf-8", "surrogateescape"), 0)
        env = self._lanes.env
        try:
            with self._lanes.nodes.network_of(ns):
                pid = os.posix_spawn(
                    find_tool(argv[0], env["PATH"]),
                    argv,
                    env,
                    file_actions=[(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate(files)],
                    setsigmask=(),
                    setsigdef=CATCHABLE,
                )
        except OSError as error:
            self._done(127, "", f"{argv[0]}: {wire.explained(error)}")
            _close(files)
            return False

        def ended(status: int) -> None:
            out, err = (os.pread(fd, os.fstat(fd).st_size, 0) for fd in files[1:])
            _close(files)
            self._ended(os.waitstatus_to_exitcode(status), err.decode(errors="replace"), out)

        self._lanes.server.children[pid] = ended
        return True

    def _ended(self, status: int, stderr: str, stdout: bytes = b"") -> None:
        self._done(status, stdout.decode(errors="replace"), stderr)
        self.step()

    def _done(self, status: int, stdout: str, stderr: str) -> None:
        elapsed = _now() - self._started
        result = {"status": status, "out": stdout, "err": stderr, "time": self._started, "elapsed": elapsed}
        self.results.append(result)
        if status != 0 and not self._may_fail:
            self._request.failed = True


# Times of the wall clock that never step back, because the journal is in the order of these times.
_EPOCH = time.time() - time.monotonic()


def _now() -> float:
    return _EPOCH + time.monotonic()


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _inline(nodes: Nodes, kind: str, arguments: list[Any]) -> tuple[int, str, str]:
    """Do a step here. Return its status, the number of what was done, and the error."""
    items = arguments[0]
    for number, item in enumerate(items):
        try:
            _INLINE[kind](nodes, *item)
        except OSError as error:
            return 1, str(number), f"{error.strerror}: {error.filename or item}"
    return 0, str(len(items)), ""


def _set_sysctl(nodes: Nodes, ns: str, name: str, value: str, optional: bool) -> None:
    with nodes.network_of(ns):
        try:
            fd = os.open(f"sys/{name}", os.O_WRONLY, dir_fd=nodes.proc(ns))
        except FileNotFoundError:
            if optional:
                return
            raise
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)


def _write_file(nodes: Nodes, path: str, content: str) -> None:
    # In place, because a replayed trace binds it over a file in /etc, where a new file would not be seen.
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.truncate(fd, os.pwrite(fd, content.encode(), 0))
    finally:
        os.close(fd)
    nodes.file_written(path)


def _remove_file(_nodes: Nodes, path: str) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)


def _settle(nodes: Nodes, ns: str, bridge: str) -> None:
    with nodes.network_of(ns), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        kernel.sync_carrier(sock, bridge)


_INLINE: dict[str, Callable[..., None]] = {
    "sysctl": _set_sysctl,
    "write": _write_file,
    "remove": _remove_file,
    "settle": _settle,
}
