"""`spawn`: a command that goes on while the next steps run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import trio
from attrs import frozen

from patchbay.errors import Problem
from patchbay.sim.actions.command import CommandStep, unknown_capture
from patchbay.sim.durations import Seconds

if TYPE_CHECKING:
    from patchbay.sim.acting import Acting

__all__ = ["SpawnStep"]


@frozen(kw_only=True)
class SpawnStep(CommandStep):
    """Starts a command in the background.

    The step is over when the capture `ready` was seen (waiting `capture_timeout`) and `ready_after` has
    passed. `timeout` bounds that and not the process, which lives until the end of the sim at most.
    """

    action: ClassVar[str] = "spawn"

    ready: str | None = None
    ready_after: Seconds | None = None

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if self.ready is not None and self.ready not in self.captures:
            yield Problem("ready", unknown_capture(self.ready, self.captures))

    async def perform(self, act: Acting) -> None:
        argv, env = await self.command(act)
        process = act.process(self, argv, env)
        await act.in_background(process)
        if self.ready is not None:
            await act.capture(process, self.ready)
        if self.ready_after is not None:
            # If it ends meanwhile, the runner looks at how before it goes on.
            with trio.move_on_after(self.ready_after):
                await process.output.ended.wait()
