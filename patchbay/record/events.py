"""The events of a lab, in order."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import trio
from attrs import field, frozen

__all__ = ["EventLog", "LabEvent"]


@frozen
class LabEvent:
    """One event. `opid` counts up; `timestamp` is UTC, RFC 3339; `fields` depend on `kind`."""

    opid: int
    timestamp: str
    kind: str
    fields: Mapping[str, Any] = field(factory=dict)

    def to_line(self) -> str:
        """Return the event as a line of events.jsonl."""
        head = {"opid": self.opid, "timestamp": self.timestamp, "kind": self.kind}
        return json.dumps({**head, **self.fields}, ensure_ascii=False) + "\n"


class EventLog:
    """Events so far, and a way to follow them."""

    def __init__(self) -> None:
        self.events: list[LabEvent] = []
        self.closed = False
        self._more = trio.Event()

    def add(self, kind: str, **fields: Any) -> LabEvent:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        event = LabEvent(len(self.events) + 1, now, kind, fields)
        self.events.append(event)
        self._wake()
        return event

    def close(self) -> None:
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = trio.Event()

    def follow(self) -> AsyncIterator[LabEvent]:
        """Iterate over every event from the first on, until the lab is closed."""
        return _Following(self)

    async def wait_for(self, number: int) -> LabEvent | None:
        """Return the event of a number, counted from 0, when it has happened; None if it never will."""
        while len(self.events) <= number:
            if self.closed:
                return None
            await self._more.wait()
        return self.events[number]


class _Following(AsyncIterator[LabEvent]):
    """Follows a log. No generator, so that a loop which is left early has nothing to close."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._seen = 0

    async def __anext__(self) -> LabEvent:
        event = await self._log.wait_for(self._seen)
        if event is None:
            raise StopAsyncIteration
        self._seen += 1
        return event
