"""What a part of a lab consists of beside its interfaces, and the commands from one state to another.

An *aspect* is kept by what it is about, with the command that brings it about and the one that takes it
back. A change is the difference of two tables of them, so that making, altering and undoing are one.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

from attrs import frozen

from patchbay.tools.commands import Command

__all__ = ["GONE", "Aspect", "Aspects", "differences"]

# What undoing may find done already, in the words of ip and tc.
GONE = (
    *("Cannot find device", "No such process", "No such file or directory", "FIB table does not exist"),
    "Cannot assign requested address",
    *("Cannot delete qdisc with handle of zero", "Invalid handle"),
    *("Failed to find specified qdisc", "Failed to find qdisc", "Cannot find specified qdisc"),
)


@frozen
class Aspect:
    """What brings something about, and what takes it back; None where it goes with something else."""

    do: Command
    undo: Command | None = None


Aspects = dict[tuple[str, ...], Aspect]


def differences(
    before: Aspects, after: Aspects, gone: Container[str | None] = (), anew: Container[str | None] = ()
) -> Iterator[Command]:
    """What turns `before` into `after`; in the namespaces `gone` nothing has to be taken back, and what
    nodes own that were made `anew` has to be done again.
    """
    for key, aspect in before.items():
        if key not in after and aspect.undo is not None and aspect.undo.ns not in gone:
            yield aspect.undo
    for key, aspect in after.items():
        do = aspect.do
        if key not in before or before[key].do != do or do.owner.partition("#")[0] in anew:
            yield do
