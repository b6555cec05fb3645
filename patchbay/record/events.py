"""What happened in a lab, one event after another."""

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
        """The event as a line of events.jsonl."""
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

    async def follow(self) -> AsyncIterator[LabEvent]:
        """Every event from the first on, until the lab is closed."""
        seen = 0
        while True:
            while seen < len(self.events):
                seen += 1
                yield self.events[seen - 1]
            if self.closed:
                return
            await self._more.wait()
