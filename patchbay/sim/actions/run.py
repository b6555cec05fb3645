"""`run`: a command to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from patchbay.sim.actions.command import CommandStep

if TYPE_CHECKING:
    from patchbay.sim.acting import Acting

__all__ = ["RunStep"]


@frozen(kw_only=True)
class RunStep(CommandStep):
    """Runs a command and waits for its end; a wrong exit status fails the sim."""

    action: ClassVar[str] = "run"

    async def perform(self, act: Acting) -> None:
        argv, env = await self.command(act)
        process = act.process(self, argv, env)
        await process.run()
        process.check_end()
        act.measure(process)
