"""The kinds of step: a closed union of plain values. How each is performed is in `live/perform.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self, TypeVar

import attrs
from attrs import evolve, field, frozen

from patchbay.errors import Problem
from patchbay.sim.spec.captures import Capture, Parser
from patchbay.sim.spec.durations import Seconds, in_words
from patchbay.sim.spec.fields import (
    Captures,
    Checks,
    Command,
    DeviceName,
    Environment,
    Kind,
    OtherId,
    OwnId,
    Port,
    Readiness,
    Refs,
    ResultNames,
    Rewriter,
    Texts,
    kind_of,
    says,
)
from patchbay.sim.spec.refs import Ref
from patchbay.sim.spec.results import Results

__all__ = [
    "ACTIONS",
    "AssertStep",
    "CommandStep",
    "PlannedStep",
    "RunStep",
    "SpawnStep",
    "Step",
    "WaitForStep",
    "WaitStep",
]

_Found = TypeVar("_Found")

_CAPTURE_TIMEOUT = Seconds(30.0)
_WAIT_FOR_TIMEOUT = Seconds(300.0)
_LAST_SIGNAL = 64  # signal(7)


@frozen(kw_only=True)
class BaseStep:
    """A step of a sim.

    `device` is the node that the step is about, `requires` are captures that it waits for before it begins,
    each for `capture_timeout` (default 30 s); `timeout` is how long all of it may take (default: for ever,
    but for `wait-for`).
    """

    action: ClassVar[str]

    id: str | None = field(default=None, metadata=says(OwnId()))
    device: str | None = field(default=None, metadata=says(DeviceName()))
    requires: tuple[str, ...] = field(default=(), metadata=says(Refs()))
    timeout: Seconds | None = None
    capture_timeout: Seconds = _CAPTURE_TIMEOUT

    @property
    def own_id(self) -> str | None:
        """Return the id by which others know the step."""
        return self.id

    @property
    def declares(self) -> dict[str, Capture]:
        """Return the captures that others may ask the step for."""
        return {}

    def describe(self) -> str:
        """Say in a few words what the step does: "run on client"."""
        return f"{self.action} on {self.device}" if self.device else self.action

    # -- what follows from the fields

    def problems(self) -> Iterator[Problem]:
        """Tell what is wrong with the step by itself, under paths relative to it."""
        return self._of_fields(lambda kind, name, value: kind.problems(name, value, self))

    def texts(self) -> Iterator[tuple[str, str]]:
        """Return (path, text) of everything in which variables are replaced."""
        return self._of_fields(lambda kind, name, value: kind.texts(name, value))

    def refs(self) -> Iterator[tuple[str, Ref]]:
        """Return (path, capture) of every readable capture that is named outside of texts."""
        return self._of_fields(lambda kind, name, value: kind.refs(name, value))

    def rewritten(self, rewriter: Rewriter) -> Self:
        """Return the step for one of several devices, or after its references were replaced."""
        new = {
            name: kind.rewritten(name, getattr(self, name), rewriter)
            for name, kind in _kinds(type(self)).items()
        }
        return evolve(self, **new)

    def _of_fields(self, found: Callable[[Kind, str, Any], Iterator[_Found]]) -> Iterator[_Found]:
        for name, kind in _kinds(type(self)).items():
            yield from found(kind, name, getattr(self, name))


def _kinds(step: type[BaseStep]) -> dict[str, Kind]:
    return {each.name: kind_of(each.metadata) for each in attrs.fields(step)}


@frozen(kw_only=True)
class CommandStep(BaseStep):
    """A command in a node.

    `args` are appended to `cmd`; `env` is added to the environment; `expect_exit` is the exit status
    that is none of failure (default 0; minus the signal's number for a death by signal).
    """

    cmd: tuple[str, ...] = field(metadata=says(Command()))
    args: tuple[str, ...] = field(default=(), metadata=says(Texts()))
    env: dict[str, str] = field(factory=dict, metadata=says(Environment()))
    parser: Parser = Parser.TEXT
    captures: dict[str, Capture] = field(factory=dict, metadata=says(Captures()))
    results: Results = field(factory=Results, metadata=says(ResultNames()))
    expect_exit: int = 0

    @property
    def declares(self) -> dict[str, Capture]:
        return self.captures

    def problems(self) -> Iterator[Problem]:
        if self.device is None:
            yield Problem("device", "is missing, and required")
        if not -_LAST_SIGNAL <= self.expect_exit <= 255:
            yield Problem("expect_exit", f"found {self.expect_exit}; accepted: -{_LAST_SIGNAL} to 255")
        yield from super().problems()


@frozen(kw_only=True)
class RunStep(CommandStep):
    """Runs a command and waits for its end; a wrong exit status fails the sim."""

    action: ClassVar[str] = "run"


@frozen(kw_only=True)
class SpawnStep(CommandStep):
    """Starts a command in the background.

    The step is over when the capture `ready` was seen, or something in the node listens on the port `ready`,
    for which it waits `capture_timeout`, and when `ready_after` has passed. `timeout` bounds that and not the
    process, which lives until the end of the sim at most.
    """

    action: ClassVar[str] = "spawn"

    ready: str | Port | None = field(default=None, metadata=says(Readiness()))
    ready_after: Seconds | None = None


@frozen(kw_only=True)
class WaitForStep(BaseStep):
    """Waits for the process of the step `id` to end, and to end well; `timeout` is 300 s by default."""

    action: ClassVar[str] = "wait-for"

    id: str = field(metadata=says(OtherId()))
    timeout: Seconds = _WAIT_FOR_TIMEOUT

    @property
    def own_id(self) -> str | None:
        return None

    def describe(self) -> str:
        return f"wait-for {self.id}"


@frozen(kw_only=True)
class WaitStep(BaseStep):
    """Lets `duration` pass."""

    action: ClassVar[str] = "wait"

    duration: Seconds

    def describe(self) -> str:
        return f"wait {in_words(self.duration)}"


@frozen(kw_only=True)
class AssertStep(BaseStep):
    """Fails the sim unless every one of `checks` (and `check`) holds; all that do not are reported.

    The newest value counts; where there is none yet it is waited for.
    """

    action: ClassVar[str] = "assert"

    check: str | None = field(default=None, metadata=says(Checks()))
    checks: tuple[str, ...] = field(default=(), metadata=says(Checks()))

    @property
    def all_checks(self) -> tuple[str, ...]:
        """Return `check` and `checks` together."""
        return (*([] if self.check is None else [self.check]), *self.checks)

    def problems(self) -> Iterator[Problem]:
        if not self.all_checks:
            yield Problem("", "an assert without a check; accepted: `check` or `checks`")
        yield from super().problems()

    def rewritten(self, rewriter: Rewriter) -> Self:
        merged = evolve(self, check=None, checks=self.all_checks)
        return super(AssertStep, merged).rewritten(rewriter)


Step = RunStep | SpawnStep | WaitForStep | WaitStep | AssertStep

ACTIONS: dict[str, type[Step]] = {
    RunStep.action: RunStep,
    SpawnStep.action: SpawnStep,
    WaitForStep.action: WaitForStep,
    WaitStep.action: WaitStep,
    AssertStep.action: AssertStep,
}


@frozen
class PlannedStep:
    """A step in its place: `path` is its place in the file, `key` tells repetitions apart."""

    path: str
    key: str
    step: Step

    @property
    def label(self) -> str:
        """Return the step as messages name it: step[3] 'iperf' (run on client)."""
        name = f" '{self.step.own_id}'" if self.step.own_id else ""
        return f"{self.path}{name} ({self.step.describe()})"

    @property
    def title(self) -> str:
        """Return the step without its place: iperf (run on client)."""
        words = self.step.describe()
        return f"{self.step.own_id} ({words})" if self.step.own_id else words
