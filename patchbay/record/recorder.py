"""The recorder of a lab, which notes all that happens in memory, and in the run's folder if there is one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from patchbay.change.base import Change, Event
from patchbay.execute.apply import Outcome
from patchbay.record.events import EventLog
from patchbay.record.folder import LabFolder
from patchbay.record.journal import Journal, to_line
from patchbay.record.state import new_state, reduce_event

__all__ = ["Recorder"]

# state.json is written whole each time: not for every node of a lab that is built one by one.
_STATE_EVERY = 0.25


class Recorder:
    """A lab's journal and events."""

    def __init__(self, folder: LabFolder | None) -> None:
        self.journal = Journal()
        self.events = EventLog()
        self.state = new_state()
        self.folder = folder
        self._written = 0
        self._state_at = 0.0

    def change(self, outcomes: Sequence[Outcome], changes: Iterable[Change], events: Iterable[Event]) -> None:
        """Note a call that changed the lab, and what its changes say of themselves."""
        self._commands(outcomes, undone=False)
        if self.folder:
            from patchbay.record import history

            self.folder.append("changes.jsonl", map(history.to_line, changes))
        for kind, fields in events:
            self.event(kind, **fields)

    def failure(self, outcomes: Sequence[Outcome]) -> None:
        """Note a call that failed, and what undid it."""
        self._commands(outcomes, undone=True)

    def _commands(self, outcomes: Sequence[Outcome], *, undone: bool) -> None:
        self.journal.add(outcomes, undone=undone)
        if self.folder:
            records = self.journal.records()
            self.folder.append("commands.jsonl", map(to_line, records[self._written :]))
            self._written = len(records)

    def event(self, kind: str, **fields: Any) -> None:
        event = self.events.add(kind, **fields)
        reduce_event(self.state, kind, fields)
        if self.folder:
            self.folder.append("events.jsonl", [event.to_line()])
            if time.monotonic() - self._state_at > _STATE_EVERY:
                self._write_state()

    def _write_state(self) -> None:
        if self.folder:
            self.folder.write_state(self.state)
            self._state_at = time.monotonic()

    def close(self) -> None:
        self.event("lab_stopped")
        self.events.close()
        self._write_state()
        if self.folder:
            self.folder.close()
