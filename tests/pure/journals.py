"""Journals of plans that were never carried out."""

from collections.abc import Iterable

from patchbay.execute.apply import Outcome, Result
from patchbay.execute.batches import batches
from patchbay.plan.plan import Plan
from patchbay.record.journal import Journal
from patchbay.tools.commands import Command


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
