"""A lab's description as far as it could be read."""

from __future__ import annotations

from attrs import frozen

from patchbay.errors import Problem
from patchbay.model.lab import LabSpec

__all__ = ["Draft"]


@frozen
class Draft:
    """The part of a lab file that can be read, and the problems of the rest.

    `layout.allocate.lay_out` adds what else is wrong, so that a user hears of everything at once.
    """

    spec: LabSpec
    problems: tuple[Problem, ...] = ()
    source: str | None = None
