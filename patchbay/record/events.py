"""What happened in a lab, one event after another, and the state that they add up to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import trio
from attrs import field, frozen

from patchbay.addressing.layout import DeviceLayout, IfaceLayout, Layout, Names, RouterKind, RouterLayout

__all__ = ["EventLog", "LabEvent", "added", "reduce_events", "snapshot"]

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


def _iface(iface: IfaceLayout) -> dict[str, Any]:
    return {
        "name": iface.name,
        "router": iface.router,
        "addresses": [str(address) for address in iface.addresses],
        "mac": iface.mac,
        "mtu": iface.mtu,
    }


def _router(router: RouterLayout) -> dict[str, Any]:
    return {
        "name": router.name,
        "ns": router.ns,
        "upstream": router.parent.partition(":")[2] if router.parent else None,
        "region": router.region,
        "nat": str(router.nat),
        "nat_v6": str(router.nat_v6),
        "firewall": str(router.firewall),
        "ip_support": str(router.ip_support),
        "uplink": _iface(router.uplink) if router.uplink else None,
        "downstream": [str(network) for network in router.networks],
    }


def _device(device: DeviceLayout) -> dict[str, Any]:
    return {
        "name": device.name,
        "ns": device.ns,
        "default_via": device.default_via,
        "ifaces": [_iface(iface) for iface in device.ifaces],
    }


def added(old: Layout | None, new: Layout) -> Iterable[tuple[str, dict[str, Any]]]:
    """(kind, fields) of the events that tell what `new` has and `old` had not."""
    before = {node.ns: node for node in old.nodes()} if old else {}
    for forwarder in new.forwarders.values():
        if before.get(forwarder.ns) != forwarder and forwarder.kind is not RouterKind.IX:
            yield f"{forwarder.kind}_added", _router(forwarder)
    for device in new.devices.values():
        if before.get(device.ns) != device:
            yield "device_added", _device(device)


def snapshot(layout: Layout, names: Names) -> State:
    """The lab's state as its layout and names have it."""
    state = _empty()
    for kind, fields in added(None, layout):
        _reduce(state, kind, fields)
    dns = {scope: {name: str(at) for name, at in entries.items()} for scope, entries in names.hosts.items()}
    return {**state, "dns": dns}


def reduce_events(events: Iterable[LabEvent]) -> State:
    """The lab's state as its events tell it: the same as its snapshot."""
    state = _empty()
    for event in events:
        _reduce(state, event.kind, event.fields)
    return state


def _empty() -> State:
    return {"routers": {}, "regions": {}, "devices": {}, "dns": {}}


def _reduce(state: State, kind: str, fields: Mapping[str, Any]) -> None:
    if kind in ("router_added", "region_added", "device_added"):
        state[kind.removesuffix("_added") + "s"][fields["name"]] = dict(fields)
    elif kind == "dns_entry_added":
        state["dns"].setdefault(fields["scope"], {})[fields["name"]] = fields["ip"]
