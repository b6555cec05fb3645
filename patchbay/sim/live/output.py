"""The output of a step's command: cut into lines, searched for captures, its end kept for messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from patchbay.sim.spec.captures import Capture, Captured, NotJson, Parser, Pipe, scan_document, scan_line

__all__ = ["StepOutput"]

_TAIL_LINES = 10
_TAIL_CHARACTERS = 2000


class StepOutput:
    """The output of one command, as far as it has come. Whoever waits for a capture is woken by it.

    Values go to `captured`. `on_line(pipe, line)` sees each whole line. `fault` says what is wrong with the
    output as such.
    """

    def __init__(
        self,
        parser: Parser,
        captures: Mapping[str, Capture],
        captured: dict[str, Captured],
        on_line: Callable[[Pipe, bytes], object],
    ) -> None:
        self.captured = captured
        self.ended = trio.Event()
        self.fault = ""
        self._captures = captures
        self._on_line = on_line
        self._documents = _document_pipes(captures) if parser is Parser.JSON else frozenset()
        self._kept: dict[Pipe, list[str]] = {pipe: [] for pipe in Pipe}
        self._counts = dict.fromkeys(Pipe, 0)
        self._unfinished = {pipe: bytearray() for pipe in Pipe}
        self._news = trio.Event()

    def feed(self, pipe: Pipe, data: bytes) -> None:
        """More of the output, cut anywhere."""
        unfinished = self._unfinished[pipe]
        unfinished += data
        if b"\n" in data:
            *lines, rest = bytes(unfinished).split(b"\n")
            unfinished[:] = rest
            for line in lines:
                self._line(pipe, line)

    def _line(self, pipe: Pipe, raw: bytes) -> None:
        self._on_line(pipe, raw)
        line = raw.decode(errors="replace").rstrip("\r")
        self._counts[pipe] += 1
        self._kept[pipe].append(line)
        if pipe not in self._documents:
            del self._kept[pipe][:-_TAIL_LINES]
        self._add(scan_line(self._captures, pipe, self._counts[pipe], line))

    def _add(self, found: Mapping[str, Captured]) -> None:
        if found:
            self.captured.update(found)
            self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def end(self) -> None:
        """No more will come: what is read as a whole is read now."""
        for pipe, rest in self._unfinished.items():
            if rest:
                self._line(pipe, bytes(rest))
        for pipe in sorted(self._documents):
            try:
                self._add(scan_document(self._captures, pipe, "\n".join(self._kept[pipe])))
            except NotJson as error:
                self.fault = str(error)
        self.ended.set()
        self._wake()

    async def wait_for(self, name: str) -> Captured | None:
        """Wait for a capture and return its newest value; None if the command ended without one."""
        while name not in self.captured:
            if self.ended.is_set():
                return None
            await self._news.wait()
        return self.captured[name]

    def tail(self, pipe: Pipe) -> str:
        """Return the last lines of a stream."""
        return "\n".join(self._kept[pipe][-_TAIL_LINES:]).rstrip()[-_TAIL_CHARACTERS:]


def _document_pipes(captures: Mapping[str, Capture]) -> frozenset[Pipe]:
    """Return the streams that must be JSON: those that something is picked from."""
    picked = frozenset(capture.pipe for capture in captures.values() if capture.pick is not None)
    return picked or frozenset({Pipe.STDOUT})
