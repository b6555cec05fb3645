"""A plan: what to do, in an order that the executor may overlap only where that cannot matter."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve, frozen

from patchbay.model.names import IfName, NsName
from patchbay.tools.commands import Command, Ip, Tc

__all__ = ["Plan", "Stage", "forgiving"]


# What doing may find done already, in the words of ip and tc.
THERE = ("File exists", "Address already assigned")


@frozen
class Stage:
    """`make` is done one after another; then `configure`, the commands of one namespace in their
    order, those of several side by side, and beside the `make` of the stages that follow.

    So a command under `configure` may rely on everything made in its stage or before, and on what
    was configured before in its own namespace, and on nothing else. A stage that is a `barrier`
    begins when everything before it is done. Services are started and ended last in each of the two.
    """

    make: tuple[Command, ...] = ()
    configure: tuple[Command, ...] = ()
    barrier: bool = False

    def __iter__(self) -> Iterator[Command]:
        yield from self.make
        yield from self.configure


@frozen
class Plan:
    """Stages in order, and the interfaces that have to carry packets when all is done."""

    stages: tuple[Stage, ...] = ()
    settle: tuple[tuple[NsName, IfName], ...] = ()

    def __iter__(self) -> Iterator[Command]:
        for stage in self.stages:
            yield from stage

    def __bool__(self) -> bool:
        return bool(self.stages)


def forgiving(plan: Plan) -> Plan:
    """Return the plan for undoing a change that failed half-way: each part may be undone already."""
    return evolve(plan, stages=tuple(map(_forgiving, plan.stages)))


def _forgiving(stage: Stage) -> Stage:
    return evolve(
        stage,
        make=tuple(map(_tolerating, stage.make)),
        configure=tuple(map(_tolerating, stage.configure)),
    )


def _tolerating(command: Command) -> Command:
    return evolve(command, tolerate=(*command.tolerate, *THERE)) if isinstance(command, Ip | Tc) else command
