"""What every step has, and what a step must tell of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from attrs import evolve, frozen

from patchbay.config.converter import Unacceptable
from patchbay.errors import Problem
from patchbay.sim.captures import Capture
from patchbay.sim.durations import Seconds
from patchbay.sim.refs import RESERVED, Ref, name_problem, parse_ref

if TYPE_CHECKING:
    from patchbay.sim.acting import Acting

__all__ = ["BaseStep", "PlannedStep", "Rewriter", "some_ref"]

_CAPTURE_TIMEOUT = Seconds(30.0)


class Rewriter(Protocol):
    """Replaces what a step says of repeated steps and devices, for one of its repetitions."""

    @property
    def device(self) -> str | None:
        """The device that it is aimed at."""

    def own_id(self, name: str) -> str:
        """Its id."""

    def one(self, where: str, ref: Ref) -> Ref:
        """A capture that it names, at a path of the step, where only one can be meant."""

    def many(self, ref: Ref) -> list[Ref]:
        """The same where several can be meant."""

    def text(self, where: str, text: str) -> str:
        """A text with variables, at a path of the step."""


@frozen(kw_only=True)
class BaseStep:
    """A step of a sim.

    `device` is the node that it is about, `requires` are captures that it waits for before it begins,
    each for `capture_timeout` (default 30 s); `timeout` is how long all of it may take (default: for
    ever, but for `wait-for`).
    """

    action: ClassVar[str]

    id: str | None = None
    device: str | None = None
    requires: tuple[str, ...] = ()
    timeout: Seconds | None = None
    capture_timeout: Seconds = _CAPTURE_TIMEOUT

    # -- what it says of others

    @property
    def own_id(self) -> str | None:
        """The id by which others know it."""
        return self.id

    @property
    def declares(self) -> dict[str, Capture]:
        """The captures that others may ask it for."""
        return {}

    def problems(self) -> Iterator[Problem]:
        """What is wrong with it by itself, under paths relative to it."""
        if self.own_id is not None and (problem := name_problem(self.own_id, RESERVED)):
            yield Problem("id", problem)
        for index, text in enumerate(self.requires):
            yield from _ref_problem(f"requires[{index}]", text)

    def texts(self) -> Iterator[tuple[str, str]]:
        """(path, text) of everything in which variables are replaced."""
        yield from ()

    def refs(self) -> Iterator[tuple[str, Ref]]:
        """(path, capture) of every capture that it names outside of texts, as far as they can be read."""
        for index, text in enumerate(self.requires):
            if ref := some_ref(text):
                yield f"requires[{index}]", ref

    def rewritten(self, rewriter: Rewriter) -> Self:
        """Itself for one of several devices, or after its references were replaced."""
        refs = [ref for text in self.requires if (ref := some_ref(text))]
        return evolve(
            self,
            id=rewriter.own_id(self.id) if self.id else None,
            device=rewriter.device,
            requires=tuple(str(new) for ref in refs for new in rewriter.many(ref)),
        )

    # -- what it does

    async def perform(self, act: Acting) -> None:
        """Do it. Raises `StepFailed`."""
        raise NotImplementedError

    def describe(self) -> str:
        """What it does, in a few words: "run on client"."""
        return f"{self.action} on {self.device}" if self.device else self.action


def some_ref(text: str) -> Ref | None:
    """The capture that a text names, None where it names none (`problems` says so)."""
    try:
        return parse_ref(text)
    except Unacceptable:
        return None


def _ref_problem(path: str, text: str) -> Iterator[Problem]:
    try:
        parse_ref(text)
    except Unacceptable as error:
        yield Problem(path, str(error))


@frozen
class PlannedStep:
    """A step in its place: `path` is where it stands in the file, `key` tells repetitions apart."""

    path: str
    key: str
    step: BaseStep

    @property
    def label(self) -> str:
        """How messages name it: step[3] 'iperf' (run on client)."""
        name = f" '{self.step.own_id}'" if self.step.own_id else ""
        return f"{self.path}{name} ({self.step.describe()})"

    @property
    def title(self) -> str:
        """The same without its place: iperf (run on client)."""
        words = self.step.describe()
        return f"{self.step.own_id} ({words})" if self.step.own_id else words
