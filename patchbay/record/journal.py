"""The journal: every command that was applied to a lab, singly, with what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from attrs import asdict, frozen

from patchbay.execute.apply import Outcome

__all__ = ["Change", "Journal", "Record", "final_state", "read_records", "to_line"]


@frozen
class Record:
    """One command. `time` is seconds since the epoch; `elapsed`, in seconds, is that of its whole batch.

    `status` is its exit status, or None if a failure before it kept it from being run. `how` says
    how it was really done where that is not the command line itself. `change` numbers the call that
    it belonged to; `undone` tells that the call failed and was taken back; `ends` is the owner that was gone
    after it.
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
    slot: str
    change: int
    undone: bool = False
    ends: str = ""

    @property
    def stdin(self) -> str:
        return self.input


@frozen
class Change:
    """One call that changed the lab: what was tried, and whether it stands."""

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
                slot=command.slot,
                change=number,
                undone=change.undone,
                ends=command.ends,
            )
            seq += 1
        batch += 1


def final_state(records: Iterable[Record]) -> list[Record]:
    """The records that made the lab what it is: without what was undone, replaced or taken away."""
    standing: list[Record] = []
    alive: set[str] = set()
    for record in records:
        if record.undone or record.status != 0:
            continue
        if record.argv[:3] == ("ip", "netns", "add"):
            alive.add(record.argv[3])
        if record.argv[:3] == ("ip", "netns", "del"):
            alive.discard(record.argv[3])
            standing = [kept for kept in standing if _node(kept.owner) != record.argv[3]]
        elif record.ends:
            standing = [kept for kept in standing if kept.owner != record.ends]
        elif not record.how.startswith(_CHECKED) and _node(record.owner) in alive:
            standing.append(record)
    last = {(r.owner, r.ns, r.slot): r.change for r in standing if r.slot}
    return [
        r for r in standing if not r.slot or (last[r.owner, r.ns, r.slot] == r.change and not _takes_back(r))
    ]


# What only looks makes nothing.
_CHECKED = "compared"


def _takes_back(record: Record) -> bool:
    """Whether the record is the end of what one in the same place began: then neither has to be done."""
    words = (("pkill",), ("rm",), ("tc", "qdisc", "del"), ("ip", "neigh", "flush"))
    return record.argv[:1] in words or record.argv[:3] in words


def _node(owner: str) -> str:
    """The namespace of the node that an owner is, or is a part of."""
    return owner.partition("#")[0]


def to_line(record: Record) -> str:
    """The record as a line of commands.jsonl."""
    return json.dumps(asdict(record), ensure_ascii=False) + "\n"


def read_records(lines: Iterable[str]) -> list[Record]:
    """The records of a commands.jsonl; a line that is still being written is left for later."""
    return [_record(json.loads(line)) for line in lines if line.endswith("\n")]


def _record(table: dict[str, Any]) -> Record:
    return Record(**{**table, "argv": tuple(table["argv"])})
