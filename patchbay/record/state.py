"""The state of a lab as plain values: what its events add up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from patchbay.change.fields import everything
from patchbay.layout.layout import Layout
from patchbay.record.events import LabEvent

__all__ = ["State", "new_state", "reduce_event", "reduce_events", "snapshot"]

State = dict[str, Any]
Fields = Mapping[str, Any]


def new_state() -> State:
    """Return the state of a lab that nothing has happened to."""
    return {
        "label": None,
        "status": None,
        "exchange": None,
        "routers": {},
        "regions": {},
        "devices": {},
        "region_links": {},
        "dns": {},
    }


def snapshot(layout: Layout) -> State:
    """Return the state of a lab that has this layout."""
    state = new_state()
    for kind, fields in everything(layout):
        reduce_event(state, kind, fields)
    return state


def reduce_events(events: Iterable[LabEvent]) -> State:
    """Return the state of a lab that had these events."""
    state = new_state()
    for event in events:
        reduce_event(state, event.kind, event.fields)
    return state


def reduce_event(state: State, kind: str, fields: Fields) -> None:
    """Take an event into the state. Events of other kinds change nothing."""
    match kind:
        case "lab_created":
            state.update(label=fields["label"], exchange=fields["exchange"], status="running")
        case "lab_stopping" | "lab_stopped":
            state["status"] = kind.removeprefix("lab_")
        case "router_added" | "region_added" | "device_added":
            state[kind.removesuffix("_added") + "s"][fields["name"]] = dict(fields)
        case "router_removed" | "device_removed":
            del state[kind.removesuffix("_removed") + "s"][fields["name"]]
            state["dns"].pop(fields["name"], None)
        case "dns_entry_added" | "dns_entry_removed":
            _reduce_name(state["dns"], kind, fields)
        case "region_linked" | "region_link_broken" | "region_link_restored":
            _reduce_region_link(state, kind, fields)
        case "nat_changed" | "firewall_changed":
            what = kind.removesuffix("_changed")
            state["routers"][fields["router"]][what] = fields[what]
        case "link_condition_changed":
            link, prefix = _link(state, fields)
            link[prefix] = dict(fields["condition"])
        case "service_lost" | "service_restored" if "iface" in fields:
            link, prefix = _link(state, fields)
            if kind == "service_lost":
                link[f"{prefix}_lost"] = True
            else:
                link.pop(f"{prefix}_lost", None)


def _reduce_name(dns: State, kind: str, fields: Fields) -> None:
    names = dns.setdefault(fields["scope"], {})
    ips = names.setdefault(fields["name"], [])
    if kind == "dns_entry_added":
        ips.append(fields["ip"])
        return
    ips.remove(fields["ip"])
    if not ips:
        del names[fields["name"]]
    if not names:
        del dns[fields["scope"]]


def _reduce_region_link(state: State, kind: str, fields: Fields) -> None:
    link = state["region_links"].setdefault(f"{fields['a']}/{fields['b']}", {"broken": False})
    link.update(fields)
    link["broken"] = kind == "region_link_broken" or (link["broken"] and kind == "region_linked")


def _link(state: State, fields: Fields) -> tuple[State, str]:
    """Return what has the link of an event, and what the keys about the link begin with."""
    name, iface = fields["node"], fields["iface"]
    if iface == "downlink":
        return state["routers"][name], "downlink"
    return next(each for each in state["devices"][name]["ifaces"] if each["name"] == iface), "link"
