"""`wait-for`: the end of a spawned process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Self

from attrs import evolve, frozen

from patchbay.errors import Problem
from patchbay.sim.actions.base import BaseStep, Rewriter
from patchbay.sim.durations import Seconds

if TYPE_CHECKING:
    from patchbay.sim.acting import Acting

__all__ = ["WaitForStep"]

_TIMEOUT = Seconds(300.0)


@frozen(kw_only=True)
class WaitForStep(BaseStep):
    """Waits for the process of the step `id` to end, and to end well; `timeout` is 300 s by default."""

    action: ClassVar[str] = "wait-for"

    id: str
    timeout: Seconds = _TIMEOUT

    @property
    def own_id(self) -> str | None:
        return None  # its `id` names another step

    def describe(self) -> str:
        return f"wait-for {self.id}"

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if not self.id:
            yield Problem("id", "found ''; accepted: the id of an earlier step")

    def rewritten(self, rewriter: Rewriter) -> Self:
        return evolve(super().rewritten(rewriter), id=rewriter.own_id(self.id))

    async def perform(self, act: Acting) -> None:
        process = act.process_of(self.id)
        await process.output.ended.wait()
        process.check_end()
        act.measure(process)
