"""A plan: what to do, in an order that the executor may overlap only where that cannot matter."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from patchbay.model.names import NsName
from patchbay.tools.commands import Command

__all__ = ["Plan", "Stage"]


@frozen
class Stage:
    """`make` is done one after another; then `configure`, the commands of one namespace in their
    order, those of several side by side, and beside the `make` of the stages that follow.

    So a command under `configure` may rely on everything made in its stage or before, and on what
    was configured before in its own namespace, and on nothing else.
    """

    make: tuple[Command, ...] = ()
    configure: tuple[Command, ...] = ()

    def __iter__(self) -> Iterator[Command]:
        yield from self.make
        yield from self.configure


@frozen
class Plan:
    """Stages in order, and the bridges that have to carry packets when all is done."""

    stages: tuple[Stage, ...] = ()
    settle: tuple[NsName, ...] = ()

    def __iter__(self) -> Iterator[Command]:
        for stage in self.stages:
            yield from stage

    def __bool__(self) -> bool:
        return bool(self.stages)
