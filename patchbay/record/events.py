"""What happened in a lab, one event after another, and the state that they add up to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import trio
from attrs import field, frozen

from patchbay.change.fields import everything
from patchbay.layout.layout import Layout

__all__ = ["EventLog", "LabEvent", "reduce_events", "snapshot"]

State = dict[str, Any]


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


def snapshot(layout: Layout) -> State:
    """Return the lab's state as its layout has it."""
    state = _empty()
    for kind, fields in everything(layout):
        _reduce(state, kind, fields)
    return state


def reduce_events(events: Iterable[LabEvent]) -> State:
    """The lab's state as its events tell it: the same as its snapshot."""
    state = _empty()
    for event in events:
        _reduce(state, event.kind, event.fields)
    return state


def _empty() -> State:
    return {"routers": {}, "regions": {}, "devices": {}, "region_links": {}, "dns": {}}


def _reduce(state: State, kind: str, fields: Mapping[str, Any]) -> None:
    if kind in ("router_added", "region_added", "device_added"):
        state[kind.removesuffix("_added") + "s"][fields["name"]] = dict(fields)
    elif kind in ("router_removed", "device_removed"):
        del state[kind.removesuffix("_removed") + "s"][fields["name"]]
        state["dns"].pop(fields["name"], None)
    elif kind == "dns_entry_added":
        state["dns"].setdefault(fields["scope"], {})[fields["name"]] = fields["ip"]
    elif kind.startswith("region_link"):
        link = state["region_links"].setdefault(f"{fields['a']}/{fields['b']}", {"broken": False})
        link.update(fields)
        link["broken"] = kind == "region_link_broken" or (link["broken"] and kind == "region_linked")
    elif kind in ("nat_changed", "firewall_changed"):
        what = kind.removesuffix("_changed")
        state["routers"][fields["router"]][what] = fields[what]
    elif kind in ("link_condition_changed", "link_down", "link_up"):
        _reduce_link(state, kind, fields)


def _reduce_link(state: State, kind: str, fields: Mapping[str, Any]) -> None:
    """A link is `down` only where it was lost."""
    name, iface = fields["node"], fields["iface"]
    if iface == "downlink":
        place, key, down = state["routers"][name], "downlink", "downlink_down"
    else:
        place = next(i for i in state["devices"][name]["ifaces"] if i["name"] == iface)
        key, down = "link", "link_down"
    if kind == "link_condition_changed":
        place[key] = dict(fields["condition"])
    elif kind == "link_down":
        place[down] = True
    else:
        place.pop(down, None)
