"""Journals of plans that were never carried out, and commands made of records again."""

from collections.abc import Iterable

from patchbay.execute.apply import Outcome, Result
from patchbay.execute.batches import batches
from patchbay.plan.plan import Plan
from patchbay.record.journal import Journal, Record
from patchbay.tools.commands import Command, Helper, Ip, Nft, RemoveFile, SetSysctl, Tc, WriteFile


def outcomes(plan: Plan | Iterable[Command], start: float = 0.0) -> list[Outcome]:
    """All of it went well, one batch a second."""
    found = list(batches(list(plan)))
    return [
        Outcome(batch, start + number, 0.5, (Result(0),) * len(batch.commands))
        for number, batch in enumerate(found)
    ]


def journal_of(*plans: Plan | Iterable[Command]) -> Journal:
    """Each plan is a change."""
    journal = Journal()
    for plan in plans:
        journal.add(outcomes(plan), undone=False)
    return journal


def command_of(record: Record) -> Command:
    """The command that a record tells of."""
    ns, owner, why = record.ns, record.owner, record.why
    if record.tool == "ip":
        return Ip(ns, record.argv[1:], why, owner)
    if record.tool == "tc":
        return Tc(ns, record.argv[1:], why, owner)
    if record.tool == "python3":
        module, *args = record.argv[2:]
        return Helper(ns, f"{module} {args[0]} {args[1]}", module, tuple(args), why, owner)
    if record.tool == "nft":
        return Nft(ns, record.input, why, owner)
    if record.tool == "sysctl":
        name, _, value = record.argv[-1].partition("=")
        return SetSysctl(ns, name, value, why, owner)
    if record.tool == "rm":
        return RemoveFile(record.argv[-1], why, owner)
    assert record.tool == "tee"
    return WriteFile(record.argv[1], record.input, why, owner)
