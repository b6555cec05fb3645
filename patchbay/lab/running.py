"""Running a command in a node to its end: what `Node.run` does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import subprocess
from collections.abc import Callable
from typing import IO, Any

import trio

from patchbay.errors import PatchbayError
from patchbay.sandbox.process import NodeProcess, spawn
from patchbay.sandbox.spawn import Spawn
from patchbay.sandbox.view import NodeView

__all__ = ["CommandExited", "Input", "StreamSink", "run_to_end"]

# What `trio.run_process` takes for stdin.
Input = bytes | bytearray | memoryview | int | IO[Any] | None

_TAIL = 4096
_PIPE_BUFFER = 65536


class CommandExited(subprocess.CalledProcessError):
    """A command in a node failed: `CalledProcessError` with the node and the end of stderr in its text."""

    def __init__(
        self, node: str, returncode: int, argv: list[str], stdout: Any, stderr: Any, tail: bytes
    ) -> None:
        super().__init__(returncode, argv, stdout, stderr)
        self.node = node
        self.tail = tail

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.node, self.returncode, self.cmd, self.output, self.stderr, self.tail)

    def __str__(self) -> str:
        end = self.tail.decode(errors="replace").strip()
        return f"in '{self.node}': {super().__str__()}" + (f"\n{end}" if end else "")


class _Pump:
    """Takes what comes out of a pipe to where it belongs, and remembers the end of it."""

    def __init__(self, sinks: list[Callable[[bytes], object]]) -> None:
        self.fd, self.theirs = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.fd, False)
        self._sinks = sinks
        self.tail = b""

    async def run(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            if not self._take():
                return

    def drain(self) -> None:
        """Read what was written before the command ended, which is no more than a pipe holds.

        A child that it left behind may go on writing for ever.
        """
        held = fcntl.fcntl(self.fd, fcntl.F_GETPIPE_SZ)
        with contextlib.suppress(BlockingIOError):
            while held > 0 and (taken := self._take()):
                held -= taken

    def _take(self) -> int:
        data = os.read(self.fd, _PIPE_BUFFER)
        self.tail = (self.tail + data)[-_TAIL:]
        for sink in self._sinks:
            sink(data)
        return len(data)

    def started(self) -> None:
        """Close the other end, of which the command has a copy by now."""
        os.close(self.theirs)
        self.theirs = -1

    def close(self) -> None:
        os.close(self.fd)
        if self.theirs >= 0:
            os.close(self.theirs)


class StreamSink:
    """The sink of a command's stream: a buffer, or the program's own stream, and a log."""

    def __init__(self, *, capture: bool, own: int, log: IO[bytes] | None) -> None:
        self.captured: bytearray | None = bytearray() if capture else None
        self._own = own
        self._log = log

    def sinks(self) -> list[Callable[[bytes], object]]:
        first = self.captured.extend if self.captured is not None else self._pass_on
        return [first, self._log.write] if self._log else [first]

    def _pass_on(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._own, view) :]

    @property
    def value(self) -> bytes | None:
        return bytes(self.captured) if self.captured is not None else None


async def run_to_end(
    view: NodeView,
    what: Spawn,
    *,
    stdin: Input,
    stdout: StreamSink,
    stderr: StreamSink,
    check: bool,
    timeout: float | None,
    started: Callable[[NodeProcess], object],
) -> subprocess.CompletedProcess[bytes]:
    """Run `what`; see `Node.run`."""
    source, data = _source(stdin)
    pumps = [_Pump(stdout.sinks()), _Pump(stderr.sinks())]
    code: int | None = None
    try:
        with trio.move_on_after(timeout if timeout is not None else float("inf")):
            process = await spawn(view, what, source, *(pump.theirs for pump in pumps))
            for pump in pumps:
                pump.started()
            started(process)
            try:
                code = await _wait(process, data, pumps)
            finally:
                await process.end()
    finally:
        for pump in pumps:
            pump.close()
    if code is None:
        raise trio.TooSlowError(f"in '{view.node}': {shlex.join(what.args)} was not done within {timeout} s")
    if check and code != 0:
        raise CommandExited(view.node, code, what.args, stdout.value, stderr.value, pumps[1].tail)
    return subprocess.CompletedProcess(what.args, code, stdout.value, stderr.value)


def _source(stdin: Input) -> tuple[Any, bytes]:
    """Return what a command reads from, and what is written there, as `trio.run_process` would have it."""
    if isinstance(stdin, str):
        raise UnicodeError("process stdin must be bytes, not str")
    if isinstance(stdin, bytes | bytearray | memoryview):
        return (subprocess.PIPE, bytes(stdin)) if stdin else (subprocess.DEVNULL, b"")
    if stdin == subprocess.PIPE:
        raise ValueError("stdin=subprocess.PIPE needs somebody to write there: use open_process()")
    return stdin, b""


async def _wait(process: NodeProcess, stdin: bytes, pumps: list[_Pump]) -> int:
    code: int | PatchbayError
    async with trio.open_nursery() as nursery:
        for pump in pumps:
            nursery.start_soon(pump.run)
        if process.stdin is not None:
            nursery.start_soon(_feed, process.stdin, stdin)
        try:
            code = await process.wait()
        except PatchbayError as error:
            code = error  # raised below, because the nursery would put it in a group
        nursery.cancel_scope.cancel()
    if isinstance(code, PatchbayError):
        raise code
    for pump in pumps:
        pump.drain()
    return code


async def _feed(stream: trio.abc.SendStream, data: bytes) -> None:
    try:
        async with stream:
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass  # the command did not read all of it: its right
