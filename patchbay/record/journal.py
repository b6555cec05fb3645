"""The journal: every command that was applied to a lab, singly, with what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from attrs import asdict, frozen

from patchbay.execute.apply import Outcome

__all__ = ["Change", "Journal", "Record", "read_records", "to_line"]


@frozen
class Record:
    """One command. `time` is seconds since the epoch; `elapsed`, in seconds, is that of its whole batch.

    `status` is its exit status, or None if a failure before it kept it from being run. `how` says
    how it was really done where that is not the command line itself. `change` numbers the call that
    it belonged to; `undone` is true if the call failed and was undone.
    """

    seq: int
    time: float
    ns: str | None
    why: str
    tool: str
    argv: tuple[str, ...]
    input: str
    status: int | None
    elapsed: float
    stderr: str
    batch: int
    how: str
    owner: str
    change: int
    undone: bool = False

    @property
    def stdin(self) -> str:
        return self.input


@frozen
class Change:
    """One call that changed the lab: what was tried, and whether it succeeded."""

    outcomes: tuple[Outcome, ...]
    undone: bool


class Journal:
    """Grows by one change at a time. Records are made when somebody reads them: a lab may have 20,000."""

    def __init__(self) -> None:
        self._changes: list[Change] = []
        self._records: list[Record] = []
        self._read = 0

    def add(self, outcomes: Iterable[Outcome], *, undone: bool) -> None:
        """Note a change. An undone one holds the commands that failed and those that undid them."""
        self._changes.append(Change(tuple(sorted(outcomes, key=lambda outcome: outcome.time)), undone))

    def records(self) -> tuple[Record, ...]:
        for number in range(self._read, len(self._changes)):
            self._records += _expand(self._changes[number], number, self._records)
        self._read = len(self._changes)
        return tuple(self._records)


def _expand(change: Change, number: int, before: Sequence[Record]) -> Iterator[Record]:
    seq = before[-1].seq + 1 if before else 1
    batch = before[-1].batch + 1 if before else 1
    for outcome in change.outcomes:
        for command, result in zip(outcome.batch.commands, outcome.results, strict=True):
            yield Record(
                seq=seq,
                time=outcome.time,
                ns=command.ns,
                why=command.why,
                tool=command.argv[0],
                argv=command.argv,
                input=command.stdin,
                status=result.status if result else None,
                elapsed=outcome.elapsed,
                stderr=result.stderr if result else "",
                batch=batch,
                how=command.how,
                owner=command.owner,
                change=number,
                undone=change.undone,
            )
            seq += 1
        batch += 1


def to_line(record: Record) -> str:
    """Return the record as a line of commands.jsonl."""
    return json.dumps(asdict(record), ensure_ascii=False) + "\n"


def read_records(lines: Iterable[str]) -> list[Record]:
    """Return the records of a commands.jsonl; a line that is still being written is left for later."""
    return [_record(json.loads(line)) for line in lines if line.endswith("\n")]


def _record(table: dict[str, Any]) -> Record:
    return Record(**{**table, "argv": tuple(table["argv"])})
