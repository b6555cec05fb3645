"""The context of a step while it is performed: the lab, earlier processes, and their output."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import IO

import trio

from patchbay.errors import ExpectationFailed, LabDiedError, StepFailed
from patchbay.lab.lab import Lab
from patchbay.lab.listening import INTERVAL
from patchbay.sim.live.output import StepOutput
from patchbay.sim.live.process import StepProcess
from patchbay.sim.spec.captures import Captured, Pipe
from patchbay.sim.spec.durations import in_words
from patchbay.sim.spec.fields import Port
from patchbay.sim.spec.interpolate import NodeAddress, Spellings, parse, render
from patchbay.sim.spec.outcome import Printed, SimOutcome, StepOutcome, Watch
from patchbay.sim.spec.refs import Ref, parse_ref
from patchbay.sim.spec.results import measure
from patchbay.sim.spec.steps import CommandStep

__all__ = ["LiveSim", "StepContext"]


class LiveSim:
    """A sim while its lab is open. `nursery` holds the processes that go on in the background."""

    nursery: trio.Nursery

    def __init__(self, outcome: SimOutcome, lab: Lab, watch: Watch) -> None:
        self.outcome = outcome
        self.lab = lab
        self.watch = watch
        routers = [*(router.name for router in lab.routers), lab.ix.name]
        devices = {device.name: [iface.name for iface in device.ifaces] for device in lab.devices}
        self.spellings = Spellings.of(devices, routers)
        self.processes: list[StepProcess] = []
        self._logs: dict[tuple[str, Pipe], IO[bytes]] = {}

    def process_of(self, step_id: str) -> StepProcess:
        """Return the process of the step of that id, which exists because the file was checked."""
        return next(p for p in self.processes if p.outcome.planned.step.own_id == step_id)

    def log(self, node: str, pipe: Pipe) -> IO[bytes]:
        """Return the file of what a node's commands print."""
        if (node, pipe) not in self._logs:
            path = self.lab.node(node).filepath(f"{pipe}.log")
            self._logs[node, pipe] = path.open("ab", buffering=0)
        return self._logs[node, pipe]

    def measure(self, process: StepProcess) -> list[str]:
        """Note the results of a process; what is wrong with those that are missing."""

        def value_of(name: str) -> str | None:
            if name.startswith("."):
                captured = process.outcome.captured.get(name[1:])
            else:
                ref = parse_ref(name)
                captured = self.process_of(ref.id).outcome.captured.get(ref.capture)
            return captured.value if captured else None

        process.outcome.measured, faults = measure(process.step.results, value_of)
        return faults

    def close(self) -> None:
        """When every process has ended: note what those measured that nobody waited for."""
        for process in self.processes:
            if process.outcome.measured is None:
                self.measure(process)
        for file in self._logs.values():
            file.close()


class StepContext:
    """One step's view of a sim while its lab is open."""

    def __init__(self, live: LiveSim, step: StepOutcome) -> None:
        self._live = live
        self._step = step
        # What a timeout of this step would be about.
        self._about: StepProcess | None = None

    # -- what is asked for

    async def text(self, text: str) -> str:
        """Return the text with its variables replaced; captures are waited for."""
        parts = parse(text, self._live.spellings)
        values = {part: (await self.value(part)).value for part in parts if isinstance(part, Ref)}
        return render(
            parts, lambda part: self._address(part) if isinstance(part, NodeAddress) else values[part]
        )

    def _address(self, part: NodeAddress) -> str:
        node = self._live.lab.node(part.node)
        place = node.iface(part.iface) if part.iface else node
        return str(place.ip if part.version == 4 else place.ip6)

    async def command(self, step: CommandStep) -> tuple[list[str], dict[str, str]]:
        """Return the command line and environment of a step, with every variable replaced."""
        argv = [await self.text(word) for word in (*step.cmd, *step.args)]
        return argv, {name: await self.text(value) for name, value in step.env.items()}

    async def value(self, ref: Ref) -> Captured:
        """Return the newest value of a capture, waiting for the first one. Raises `StepFailed`."""
        return await self.capture(self._live.process_of(ref.id), ref.capture)

    async def capture(self, process: StepProcess, name: str) -> Captured:
        """Wait likewise for a capture of a process."""
        limit = self._step.planned.step.capture_timeout
        found, timed_out = None, True
        with trio.move_on_after(limit):
            found = await process.output.wait_for(name)
            timed_out = False
        if found:
            return found
        whose = f"capture '{name}' of {process.outcome.planned.label}"
        what = f"{whose}: not seen within {in_words(limit)}" if timed_out else f"{whose}: it ended without it"
        capture = process.step.captures[name]
        looked_for = f"regex {capture.regex}" if capture.regex is not None else f"JSON at {capture.pick}"
        raise self.failed(f"{what}\n  looked for {looked_for} in its {capture.pipe}\n{process.evidence()}")

    async def listening(self, process: StepProcess, port: Port) -> None:
        """Wait until something in the process's node listens on a port. Raises `StepFailed`."""
        limit = self._step.planned.step.capture_timeout
        until = trio.current_time() + limit
        while (why := await process.not_listening(port)) and trio.current_time() < until:
            if process.output.ended.is_set():
                raise self.failed(f"it ended before it was ready: {why}\n{process.evidence()}")
            await trio.sleep(INTERVAL)
        if why:
            raise self.failed(f"not ready within {in_words(limit)}: {why}\n{process.evidence()}")

    def process_of(self, step_id: str) -> StepProcess:
        """Return the process of an earlier step."""
        self._about = self._live.process_of(step_id)
        return self._about

    # -- what is done

    def process(self, step: CommandStep, argv: Sequence[str], env: Mapping[str, str]) -> StepProcess:
        """Return a process of this step, yet to be run."""
        assert step.device is not None
        node = self._live.lab.node(step.device)
        for pipe in Pipe:
            self._live.log(node.name, pipe)  # both are there from now on, if only empty
        log = _LineLog(self._live, self._step, node.name)
        output = StepOutput(step.parser, step.captures, self._step.captured, log)
        whole_env = {**self._live.lab.env_vars(), **env}
        process = self._about = StepProcess(self._step, step, node, argv, whole_env, output)
        self._live.processes.append(process)
        return process

    async def in_background(self, process: StepProcess) -> None:
        """Start a process; it runs until it ends or the sim does."""
        await self._live.nursery.start(_to_its_end, process)

    def measure(self, process: StepProcess) -> None:
        """Note the results of a process that has ended. Raises `StepFailed` if one is missing."""
        if faults := self._live.measure(process):
            text = "\n".join([*faults, process.evidence()])
            raise StepFailed(f"{process.outcome.planned.label}: {text}")

    # -- what goes wrong

    def failed(self, text: str) -> StepFailed:
        """Return the failure of this step."""
        return StepFailed(f"{self._step.planned.label}: {text}")

    def too_slow(self, limit: float) -> StepFailed:
        """Return the failure of this step when its timeout has passed."""
        about = f"\n{self.evidence()}" if self._about else ""
        return self.failed(f"not done within its timeout of {in_words(limit)}{about}")

    def evidence(self) -> str:
        """Return the end of what the process printed that this step is about, empty if there is none."""
        return self._about.evidence() if self._about else ""

    def unmet(self, text: str) -> ExpectationFailed:
        """Return the failure of this step's assertion."""
        return ExpectationFailed(f"{self._step.planned.label}: {text}")


async def _to_its_end(process: StepProcess, *, task_status: trio.TaskStatus[None]) -> None:
    # If the lab dies, open_lab raises the error in its block.
    with contextlib.suppress(LabDiedError):
        await process.run(task_status=task_status)


class _LineLog:
    """Takes each line of a command's output to the node's log and to the watcher."""

    def __init__(self, live: LiveSim, step: StepOutcome, node: str) -> None:
        self._live = live
        self._step = step
        self._node = node

    def __call__(self, pipe: Pipe, line: bytes) -> None:
        self._live.log(self._node, pipe).write(line + b"\n")
        self._live.watch(Printed(self._live.outcome, self._step, pipe, line.decode(errors="replace")))
