"""Lanes: steps that the agent does one after another, several lanes side by side.

A step is a tool that it starts in a namespace, or something that it does there itself. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if __package__:
    from patchbay.sandbox import kernel
    from patchbay.sandbox.server import Conversation, find_tool
else:  # started by its path, without site-packages
    import kernel  # type: ignore[import-not-found, no-redef]
    from server import Conversation, find_tool  # type: ignore[import-not-found, no-redef]

if TYPE_CHECKING:
    from patchbay.sandbox.agent import Agent

__all__ = ["TOOL_ENV", "Lane", "Request"]

# What the agent adds to it: PATH.
TOOL_ENV = {"LC_ALL": "C"}
_CATCHABLE = [s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)]


class Request:
    """Some lanes whose results go out together. A failure keeps those that have not begun from running."""

    def __init__(self, conversation: Conversation, lanes: list[Lane], agent: Agent) -> None:
        self.conversation = conversation
        self.lanes = lanes
        self.failed = False
        self._open = len(lanes)
        for lane in lanes:
            lane.request = self
        agent.enqueue(lanes)

    def lane_done(self) -> None:
        self._open -= 1
        if self._open == 0:
            self.conversation.reply({"results": [lane.results for lane in self.lanes]})


class Lane:
    """Steps in order, up to the first that fails; one of kind "try" may."""

    request: Request

    def __init__(self, agent: Agent, key: str, steps: list[list[Any]]) -> None:
        self.key = key
        self.results: list[dict[str, Any]] = []
        self._agent = agent
        self._steps = deque(steps)
        self._started = 0.0
        self._may_fail = False

    def step(self) -> None:
        """Go on until a step has to be waited for."""
        while self._steps and not self.request.failed:
            kind, *arguments = self._steps.popleft()
            self._started = _now()
            self._may_fail = kind == "try"
            if kind in ("exec", "try"):
                if self._exec(*arguments):
                    return
            else:
                self._done(*_inline(self._agent, kind, arguments))
        self.request.lane_done()
        self._agent.finished(self)

    def _exec(self, ns: str | None, argv: list[str], text: str) -> bool:
        """Start a tool; its input and output are memory files, so that nobody has to pump them."""
        files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
        os.pwrite(files[0], text.encode("utf-8", "surrogateescape"), 0)
        try:
            self._agent.enter(ns)
            try:
                pid = os.posix_spawn(
                    find_tool(argv[0], TOOL_ENV["PATH"]),
                    argv,
                    TOOL_ENV,
                    file_actions=[(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate(files)],
                    setsigmask=(),
                    setsigdef=_CATCHABLE,
                )
            finally:
                self._agent.enter(None)
        except OSError as error:
            self._done(127, "", str(error))
            _close(files)
            return False

        def ended(status: int) -> None:
            out, err = (os.pread(fd, os.fstat(fd).st_size, 0) for fd in files[1:])
            _close(files)
            code = os.waitstatus_to_exitcode(status)
            self._done(code, out.decode(errors="replace"), err.decode(errors="replace"))
            self.step()

        self._agent.children[pid] = ended
        return True

    def _done(self, status: int, stdout: str, stderr: str) -> None:
        elapsed = _now() - self._started
        result = {"status": status, "out": stdout, "err": stderr, "time": self._started, "elapsed": elapsed}
        self.results.append(result)
        if status != 0 and not self._may_fail:
            self.request.failed = True


# Of the wall clock, but never stepping back: the journal's order is that of these times.
_EPOCH = time.time() - time.monotonic()


def _now() -> float:
    return _EPOCH + time.monotonic()


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _inline(agent: Agent, kind: str, arguments: list[Any]) -> tuple[int, str, str]:
    """A step that the agent does itself: (status, number of what was done, error)."""
    items = arguments[0]
    for number, item in enumerate(items):
        try:
            _INLINE[kind](agent, *item)
        except OSError as error:
            return 1, str(number), f"{error.strerror}: {error.filename or item}"
        finally:
            agent.enter(None)
    return 0, str(len(items)), ""


def _set_sysctl(agent: Agent, ns: str, name: str, value: str, optional: bool) -> None:
    agent.enter(ns)
    try:
        fd = os.open(f"sys/{name}", os.O_WRONLY, dir_fd=agent.proc(ns))
    except FileNotFoundError:
        if optional:
            return
        raise
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _write_file(_agent: Agent, path: str, content: str) -> None:
    # In place, as it is bound over a file in /etc: a new file of that name would not be seen there.
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.truncate(fd, os.pwrite(fd, content.encode(), 0))
    finally:
        os.close(fd)


def _remove_file(_agent: Agent, path: str) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)


def _settle(agent: Agent, ns: str, bridge: str) -> None:
    agent.enter(ns)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        kernel.sync_carrier(sock, bridge)


_INLINE: dict[str, Callable[..., None]] = {
    "sysctl": _set_sysctl,
    "write": _write_file,
    "remove": _remove_file,
    "settle": _settle,
}
