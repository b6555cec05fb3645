"""An `ip` that is kept, for additions to the lab's own namespace: starting one takes longer than they do.

It reads lines as they come. A line that names no object of `ip` is answered on stderr, after the errors of
the lines before it: so it tells that these are done (ip/ip.c, do_cmd and batch). Standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

from patchbay.sandbox.inside.programs import find_tool
from patchbay.sandbox.inside.server import CATCHABLE, Server

__all__ = ["LONGEST", "KeptIp"]

# Characters: the capacity of a pipe (pipe(7)), so that writing never waits.
LONGEST = 60_000

Done = Callable[[int, str], None]


class KeptIp:
    """Runs batches one after another. `env` is its environment."""

    def __init__(self, server: Server, env: Mapping[str, str]) -> None:
        self._server = server
        self._env = env
        self._input = self._errors = -1
        self._output = b""
        # The number of lines that it has been given, and of those before the present batch.
        self._lines = self._before = 0
        self._done: Done | None = None

    def run(self, text: str, done: Done) -> None:
        """Run a batch. `done` is called with the status and the errors that `ip -batch -` would end with."""
        if self._input < 0:
            self._start()
        self._done = done
        self._before = self._lines
        self._lines += text.count("\n") + 1
        try:
            os.write(self._input, f"{text}@{self._lines}\n".encode())
        except BrokenPipeError:
            self._ended()

    def end(self) -> None:
        """End it, because it keeps alive every namespace that it has named."""
        if self._input >= 0:
            self._server.forget(self._errors)
            for fd in (self._input, self._errors):
                os.close(fd)
            self._input = self._errors = -1

    def _start(self) -> None:
        theirs, self._input = os.pipe2(os.O_CLOEXEC)
        self._errors, errors = os.pipe2(os.O_CLOEXEC)
        null = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
        moved = [(os.POSIX_SPAWN_DUP2, theirs, 0), (os.POSIX_SPAWN_DUP2, errors, 2)]
        try:
            pid = os.posix_spawn(
                find_tool("ip", self._env["PATH"]),
                ["ip", "-force", "-batch", "-"],
                self._env,
                file_actions=[*moved, null],
                setsigmask=(),
                setsigdef=CATCHABLE,
            )
        finally:
            os.close(theirs)
            os.close(errors)
        self._server.children[pid] = lambda _: None
        self._server.watch(self._errors, self._readable)
        self._lines = 0

    def _readable(self) -> None:
        chunk = os.read(self._errors, 1 << 16)
        self._output += chunk
        if not chunk:
            self._ended()
        # Written after the error of the last line: "Object "@42" is unknown, try ...".
        elif self._output.endswith(f"Command failed -:{self._lines}\n".encode()):
            self._answer(self._first_error() or (0, ""))

    def _ended(self) -> None:
        """Take its end for an answer: it exits at a word that it cannot read (lib/utils.c, invarg)."""
        self.end()
        self._answer(self._first_error() or (1, self._output.decode(errors="replace")))

    def _first_error(self) -> tuple[int, str] | None:
        """Return the status and the output up to the first error, with its line in the batch."""
        output = self._output.decode(errors="replace")
        match = re.search(r"^Command failed -:(\d+)$", output, re.MULTILINE)
        if match is None or int(match[1]) == self._lines:
            return None
        return 1, f"{output[: match.start()]}Command failed -:{int(match[1]) - self._before}\n"

    def _answer(self, result: tuple[int, str]) -> None:
        done, self._done, self._output = self._done, None, b""
        if done:
            done(*result)
