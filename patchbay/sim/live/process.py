"""A step's command while it runs in a node."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence

import trio

from patchbay.errors import LabDiedError, StepFailed
from patchbay.lab.node import Node
from patchbay.sandbox.process import NodeProcess
from patchbay.sim.live.output import StepOutput
from patchbay.sim.spec.captures import Pipe
from patchbay.sim.spec.fields import Port
from patchbay.sim.spec.outcome import StepOutcome
from patchbay.sim.spec.steps import CommandStep

__all__ = ["StepProcess"]

_CHUNK = 65536
# A child that was left behind may print without end: take what a pipe holds at most (pipe(7)), not all.
_CHUNKS_AFTER_END = 16


class StepProcess:
    """A command of a step. Its command line, its captures and its end are noted in `outcome`."""

    def __init__(
        self,
        outcome: StepOutcome,
        step: CommandStep,
        node: Node,
        argv: Sequence[str],
        env: Mapping[str, str],
        output: StepOutput,
    ) -> None:
        self.outcome = outcome
        self.step = step
        self.argv = outcome.command = list(argv)
        self.output = output
        self._node = node
        self._env = env

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the process to its end. Cancellation ends the process and its group.

        Raises `StepFailed` if it cannot be started, `LabDiedError` if it ends with its lab.
        """
        pipes = [_OutputPipe(name, self.output) for name in Pipe]
        try:
            status = await self._run(pipes, task_status)
        finally:
            for pipe in pipes:
                pipe.close()
            self.output.end()
        self.outcome.exit = status

    async def _run(self, pipes: Sequence[_OutputPipe], task_status: trio.TaskStatus[None]) -> int:
        stdout, stderr = (pipe.theirs for pipe in pipes)
        opening = self._node.open_process(
            self.argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=self._env
        )
        async with contextlib.AsyncExitStack() as stack:
            try:
                process = await stack.enter_async_context(opening)
            except OSError as error:
                raise StepFailed(
                    f"{self.outcome.planned.label}: could not start {self.argv[0]!r}: {error.strerror}\n"
                    f"  command    {shlex.join(self.argv)}"
                ) from None
            for pipe in pipes:
                pipe.started()
            task_status.started()
            return await _end_of(process, pipes)

    async def not_listening(self, port: Port) -> str:
        """Return that nothing in its node listens on a port, and what is open there; empty if it does."""
        try:
            await self._node.listening(port.number, protocol=port.protocol, timeout=0)
        except trio.TooSlowError as error:
            return str(error)
        return ""

    def check_end(self) -> None:
        """Raises `StepFailed` if it has ended otherwise than it should, with the end of what it printed."""
        wrong = self.wrong_end()
        if wrong:
            raise StepFailed(f"{self.outcome.planned.label}: {wrong}\n{self.evidence()}")

    def wrong_end(self) -> str:
        """Return how it ended wrongly; empty while it runs, or if it ended well."""
        status, expected = self.outcome.exit, self.step.expect_exit
        if status is None:
            return ""
        if status != expected:
            return f"{self.argv[0]} {_how(status)}; expected exit status {expected}"
        return self.output.fault

    def evidence(self) -> str:
        """Return the command and the end of its stderr, or of its stdout where stderr is empty."""
        shown = next((pipe for pipe in (Pipe.STDERR, Pipe.STDOUT) if self.output.tail(pipe)), Pipe.STDERR)
        lines = self.output.tail(shown).splitlines() or ["(nothing)"]
        return f"  command    {shlex.join(self.argv)}\n  {shown:<9}  " + "\n             ".join(lines)


def _how(status: int) -> str:
    if status >= 0:
        return f"exited {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {-status}"


async def _end_of(process: NodeProcess, pipes: Sequence[_OutputPipe]) -> int:
    """Wait for the exit status and read output meanwhile. Raises `LabDiedError`, never in a group."""
    status: int | LabDiedError
    async with trio.open_nursery() as nursery:
        for pipe in pipes:
            nursery.start_soon(pipe.pump)
        try:
            status = await process.wait()
        except LabDiedError as error:
            status = error
        nursery.cancel_scope.cancel()
    if isinstance(status, LabDiedError):
        raise status
    return status


class _OutputPipe:
    """The pipe into which the command writes one of its streams."""

    def __init__(self, name: Pipe, output: StepOutput) -> None:
        self.name = name
        self.fd, self.theirs = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.fd, False)
        self._output = output

    def started(self) -> None:
        """Close the other end, of which the command has a copy by now."""
        os.close(self.theirs)
        self.theirs = -1

    async def pump(self) -> None:
        """Until every process has closed its end."""
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            if not self._take():
                return

    def _take(self) -> bool:
        data = os.read(self.fd, _CHUNK)
        self._output.feed(self.name, data)
        return bool(data)

    def close(self) -> None:
        """Take what was written last, and let go."""
        if self.theirs >= 0:
            self.started()
        with contextlib.suppress(BlockingIOError):  # a child of the command still holds the other end
            for _ in range(_CHUNKS_AFTER_END):
                if not self._take():
                    break
        os.close(self.fd)
