"""The outcome of a sim and its steps so far: plain values, which can be pickled."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from attrs import define, field, frozen

from patchbay.sim.spec.captures import Captured, Pipe
from patchbay.sim.spec.results import Measured
from patchbay.sim.spec.sim import Sim
from patchbay.sim.spec.steps import PlannedStep

__all__ = [
    "Printed",
    "RunEvent",
    "SimBegan",
    "SimEnded",
    "SimEvent",
    "SimOutcome",
    "Status",
    "StepBegan",
    "StepEnded",
    "StepOutcome",
    "Tick",
    "Watch",
]


class Status(StrEnum):
    """The status of a sim or a step. `interrupted` is what a signal or the sim's timeout stopped."""

    WAITING = "waiting"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


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
    """The outcome of a step.

    `command` is the command line of its process, if it has one, and `exit` how that ended: its exit status,
    minus a signal's number, None before its end. Of a `spawn` step, `status` says whether it started well;
    its process may end later, and what it prints is `captured` until then. `evidence` is the end of what was
    printed, for a step that was interrupted.
    """

    planned: PlannedStep = field(kw_only=True)
    command: list[str] | None = None
    exit: int | None = None
    captured: dict[str, Captured] = field(factory=dict)
    measured: Measured | None = None
    evidence: str = ""


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
class Tick:
    """A moment has passed, while sims run."""


SimEvent = SimBegan | StepBegan | StepEnded | SimEnded | Printed
RunEvent = SimEvent | Tick
Watch = Callable[[RunEvent], None]
