"""A sim: a lab, and what is done in it."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from patchbay.model.lab import LabSpec
from patchbay.sim.spec.durations import Seconds
from patchbay.sim.spec.steps import PlannedStep

__all__ = ["Sim"]


@frozen
class Sim:
    """A sim that can be run: checked, and with every counted device's steps written out."""

    name: str
    file: Path
    lab: LabSpec
    steps: tuple[PlannedStep, ...]
    timeout: Seconds | None = None
