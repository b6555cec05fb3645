"""`wait`: nothing, for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import trio
from attrs import frozen

from patchbay.sim.actions.base import BaseStep
from patchbay.sim.durations import Seconds, in_words

if TYPE_CHECKING:
    from patchbay.sim.acting import Acting

__all__ = ["WaitStep"]


@frozen(kw_only=True)
class WaitStep(BaseStep):
    """Lets `duration` pass."""

    action: ClassVar[str] = "wait"

    duration: Seconds

    def describe(self) -> str:
        return f"wait {in_words(self.duration)}"

    async def perform(self, act: Acting) -> None:
        await trio.sleep(self.duration)
