"""The kinds of step: a closed union, one file each."""

from __future__ import annotations

from patchbay.sim.actions.assert_ import AssertStep
from patchbay.sim.actions.run import RunStep
from patchbay.sim.actions.spawn import SpawnStep
from patchbay.sim.actions.wait import WaitStep
from patchbay.sim.actions.wait_for import WaitForStep

__all__ = ["ACTIONS", "AssertStep", "RunStep", "SpawnStep", "Step", "WaitForStep", "WaitStep"]

Step = RunStep | SpawnStep | WaitForStep | WaitStep | AssertStep

ACTIONS: dict[str, type[Step]] = {
    RunStep.action: RunStep,
    SpawnStep.action: SpawnStep,
    WaitForStep.action: WaitForStep,
    WaitStep.action: WaitStep,
    AssertStep.action: AssertStep,
}
