"""What happened in a lab, one event after another, and the state that they add up to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs
import trio
from attrs import field, frozen

from patchbay.layout.layout import (
    DeviceLayout,
    IfaceLayout,
    Layout,
    Names,
    NodeLayout,
    PolicyLayout,
    RouterKind,
    RouterLayout,
    WireKey,
)
from patchbay.model.firewall import Firewall, FirewallConfig
from patchbay.model.link import Trace
from patchbay.model.nat import Nat, NatConfig, PortAllocation

__all__ = ["EventLog", "LabEvent", "changed", "reduce_events", "snapshot"]

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


def _condition(layout: Layout, key: WireKey) -> dict[str, Any]:
    """What each direction of a link does to packets; empty where that is nothing."""
    wire = layout.wires.get(key)
    return {
        way: {name: value.path if isinstance(value, Trace) else value for name, value in it.said().items()}
        for way, it in (wire.condition.ways if wire else ())
        if it
    }


def _iface(iface: IfaceLayout) -> dict[str, Any]:
    return {
        "name": iface.name,
        "router": iface.router,
        "addresses": [str(address) for address in iface.addresses],
        "mac": iface.mac,
        "mtu": iface.mtu,
    }


def _plain(policy: Nat | NatConfig | Firewall | FirewallConfig) -> str | dict[str, Any]:
    """A preset by its name, anything else by its fields, as a lab file has them."""
    if isinstance(policy, Nat | Firewall):
        return str(policy)
    return attrs.asdict(policy, recurse=False, value_serializer=_plain_value)


def _plain_value(_: object, __: object, value: object) -> object:
    if isinstance(value, PortAllocation):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _router(router: RouterLayout, layout: Layout) -> dict[str, Any]:
    return {
        "name": router.name,
        "ns": router.ns,
        "upstream": router.parent.partition(":")[2] if router.parent else None,
        "region": router.region,
        "nat": _plain(layout.policy(router).nat),
        "nat_v6": str(layout.policy(router).nat_v6),
        "firewall": _plain(layout.policy(router).firewall),
        "block_icmp_frag_needed": layout.policy(router).block_icmp_frag_needed,
        "port_mapping": layout.policy(router).port_mapping,
        "ip_support": str(router.ip_support),
        "uplink": _iface(router.uplink) if router.uplink else None,
        "downstream": [str(network) for network in router.networks],
        # A region may be called like a router.
        "downlink": _condition(layout, ("downlink", router.name)) if router.kind is RouterKind.ROUTER else {},
    }


def _device(device: DeviceLayout, layout: Layout) -> dict[str, Any]:
    return {
        "name": device.name,
        "ns": device.ns,
        "default_via": device.default_via,
        "ifaces": [
            {**_iface(iface), "link": _condition(layout, ("link", device.name, iface.name))}
            for iface in device.ifaces
        ],
    }


def _link(layout: Layout, key: WireKey) -> dict[str, Any]:
    names = ("a", "b") if key[0] == "regions" else ("node", "iface")
    where = dict(zip(names, (*key[1:], "downlink"), strict=False))
    return {**where, "condition": _condition(layout, key)}


def changed(old: Layout | None, new: Layout) -> Iterable[tuple[str, dict[str, Any]]]:
    """(kind, fields) of the events that tell how `new` is not like `old`."""
    before = {node.ns: node for node in old.nodes()} if old else {}
    for forwarder in new.forwarders.values():
        if before.get(forwarder.ns) != forwarder and forwarder.kind is not RouterKind.IX:
            yield f"{forwarder.kind}_added", _router(forwarder, new)
    for device in new.devices.values():
        if before.get(device.ns) != device:
            yield "device_added", _device(device, new)
    yield from _policies_changed(old, new)
    yield from _links_changed(old, new)


def _policies_changed(old: Layout | None, new: Layout) -> Iterable[tuple[str, dict[str, Any]]]:
    for router in new.forwarders.values():
        was, is_now = old.policies.get(router.ns) if old else None, new.policies.get(router.ns)
        if was is None or is_now is None or was is is_now:
            continue
        yield from _policy_changed(router.name, was, is_now)


def _policy_changed(
    name: str, was: PolicyLayout, is_now: PolicyLayout
) -> Iterable[tuple[str, dict[str, Any]]]:
    if was.nat != is_now.nat:
        yield "nat_changed", {"router": name, "nat": _plain(is_now.nat)}
    elif was.generation != is_now.generation:
        yield "nat_flushed", {"router": name}
    if was.firewall != is_now.firewall:
        yield "firewall_changed", {"router": name, "firewall": _plain(is_now.firewall)}


def _is_region(node: NodeLayout) -> bool:
    return isinstance(node, RouterLayout) and node.kind is RouterKind.REGION


def _links_changed(old: Layout | None, new: Layout) -> Iterable[tuple[str, dict[str, Any]]]:
    before = old.wires if old else {}
    # A region may be called like a node.
    known = {node.name for node in old.nodes() if not _is_region(node)} if old else set()
    for key in {**before, **new.wires}:
        was, is_now = before.get(key), new.wires.get(key)
        if was is is_now or was == is_now:
            continue
        alike = was is not None and is_now is not None and was.condition == is_now.condition
        if key[0] == "regions" and not alike:
            yield "region_linked", _link(new, key)
        elif not alike and key[1] in known:
            yield "link_condition_changed", _link(new, key)
        if key[0] == "regions" and is_now and is_now.broken != bool(was and was.broken):
            what = "broken" if is_now.broken else "restored"
            yield f"region_link_{what}", {"a": key[1], "b": key[2]}
        elif was and was.broken and key[0] != "regions" and not (is_now and is_now.broken):
            yield "link_up", {name: value for name, value in _link(new, key).items() if name != "condition"}


def snapshot(layout: Layout, names: Names) -> State:
    """The lab's state as its layout and names have it."""
    state = _empty()
    for kind, fields in changed(None, layout):
        _reduce(state, kind, fields)
    for key, wire in layout.wires.items():
        if wire.broken and key[0] != "regions":
            _reduce(state, "link_down", _link(layout, key))
    dns = {scope: {name: str(at) for name, at in entries.items()} for scope, entries in names.hosts.items()}
    return {**state, "dns": dns}


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
