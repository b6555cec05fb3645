"""What could be read of a lab's description."""

from __future__ import annotations

from attrs import frozen

from patchbay.errors import Problem
from patchbay.model.lab import LabSpec

__all__ = ["Draft"]


@frozen
class Draft:
    """What a lab file says: all of it that can be read, and what is wrong with the rest.

    `layout.allocate.lay_out` adds what else is wrong, so that a user hears of everything at once.
    """

    spec: LabSpec
    problems: tuple[Problem, ...] = ()
    source: str | None = None
