"""What has become of a sim and its steps, so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from attrs import define, field, frozen

from patchbay.model.lab import LabSpec
from patchbay.sim.actions.base import PlannedStep
from patchbay.sim.captures import Captured, Pipe
from patchbay.sim.durations import Seconds
from patchbay.sim.measure import Measured
from patchbay.sim.process import StepProcess

__all__ = [
    "Happening",
    "InSim",
    "Printed",
    "Sim",
    "SimBegan",
    "SimEnded",
    "SimOutcome",
    "Status",
    "StepBegan",
    "StepEnded",
    "StepOutcome",
    "TimePassed",
    "Watch",
]


class Status(StrEnum):
    """Of a sim or a step. `interrupted` is what a signal or the sim's timeout stopped."""

    WAITING = "waiting"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@frozen
class Sim:
    """A sim that can be run: checked, and with every counted device's steps written out."""

    name: str
    file: Path
    lab: LabSpec
    steps: tuple[PlannedStep, ...]
    timeout: Seconds | None = None


@define(eq=False)
class _Outcome:
    """Times are in seconds; `error` is empty unless it failed."""

    status: Status = Status.WAITING
    error: str = ""
    started: datetime | None = None
    elapsed: float | None = None
    _began: float = 0.0

    def begin(self) -> None:
        self.status = Status.RUNNING
        self.started = datetime.now(UTC)
        self._began = time.monotonic()

    def end(self, status: Status, error: str = "") -> None:
        self.status = status
        self.error = error
        self.elapsed = self.so_far()

    def so_far(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began if self.started else 0.0


@define(eq=False)
class StepOutcome(_Outcome):
    """Of a `spawn` step, `status` says whether it started well; its `process` may end later."""

    planned: PlannedStep = field(kw_only=True)
    process: StepProcess | None = None
    measured: Measured | None = None

    @property
    def captured(self) -> Mapping[str, Captured]:
        return self.process.output.captured if self.process else {}


@define(eq=False)
class SimOutcome(_Outcome):
    """`folder` is where its files are."""

    sim: Sim = field(kw_only=True)
    folder: Path = field(kw_only=True)
    steps: list[StepOutcome] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.steps = [StepOutcome(planned=planned) for planned in self.sim.steps]


@frozen
class SimBegan:
    sim: SimOutcome


@frozen
class StepBegan:
    sim: SimOutcome
    step: StepOutcome


@frozen
class StepEnded:
    sim: SimOutcome
    step: StepOutcome


@frozen
class SimEnded:
    sim: SimOutcome


@frozen
class Printed:
    """A line of a command's output."""

    sim: SimOutcome
    step: StepOutcome
    pipe: Pipe
    line: str


@frozen
class TimePassed:
    """A moment, while sims run."""


InSim = SimBegan | StepBegan | StepEnded | SimEnded | Printed
Happening = InSim | TimePassed
Watch = Callable[[Happening], None]
