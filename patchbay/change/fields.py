"""The parts of a layout as the plain fields of events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patchbay.change.base import Event
from patchbay.config.encode import plain
from patchbay.layout.layout import DeviceLayout, IfaceLayout, Layout, RouterKind, RouterLayout, WireKey

__all__ = ["condition_fields", "device_fields", "everything", "link_fields", "link_place", "router_fields"]

Fields = dict[str, Any]


def condition_fields(layout: Layout, key: WireKey) -> Fields:
    """Return what each direction of a link does to packets; a direction that does nothing is left out."""
    wire = layout.wires.get(key)
    return {way: plain(impairment) for way, impairment in wire.condition.ways if impairment} if wire else {}


def _iface(iface: IfaceLayout) -> Fields:
    return {
        "name": iface.name,
        "router": iface.router,
        "addresses": [str(address) for address in iface.addresses],
        "mac": iface.mac,
        "mtu": iface.mtu,
    }


def router_fields(layout: Layout, router: RouterLayout) -> Fields:
    """Return the fields of a router or a region."""
    policy = layout.policy(router)
    return {
        "name": router.name,
        "ns": router.ns,
        "upstream": router.parent.partition(":")[2] if router.parent else None,
        "region": router.region,
        "nat": plain(policy.nat),
        "nat_v6": str(policy.nat_v6),
        "firewall": plain(policy.firewall),
        "block_icmp_frag_needed": policy.block_icmp_frag_needed,
        "port_mapping": policy.port_mapping,
        "ip_support": str(router.ip_support),
        "uplink": _iface(router.uplink) if router.uplink else None,
        "downstream": [str(network) for network in router.networks],
        # A region may have the name of a router.
        "downlink": condition_fields(layout, ("downlink", router.name))
        if router.kind is RouterKind.ROUTER
        else {},
    }


def device_fields(layout: Layout, device: DeviceLayout) -> Fields:
    return {
        "name": device.name,
        "ns": device.ns,
        "default_via": device.default_via,
        "private": list(device.private),
        "stun": device.stun,
        "ifaces": [
            {**_iface(iface), "link": condition_fields(layout, ("link", device.name, iface.name))}
            for iface in device.ifaces
        ],
    }


def link_place(key: WireKey) -> Fields:
    """Return where a link is: `a` and `b` are regions, `node` and `iface` anything else."""
    names = ("a", "b") if key[0] == "regions" else ("node", "iface")
    return dict(zip(names, (*key[1:], "downlink"), strict=False))


def link_fields(layout: Layout, key: WireKey) -> Fields:
    return {**link_place(key), "condition": condition_fields(layout, key)}


def everything(layout: Layout) -> Iterator[Event]:
    """Tell the whole of a layout, as if it had been added to a lab with nothing in it."""
    for forwarder in layout.forwarders.values():
        if forwarder.kind is not RouterKind.IX:
            yield f"{forwarder.kind}_added", router_fields(layout, forwarder)
    for device in layout.devices.values():
        yield "device_added", device_fields(layout, device)
    for key, wire in layout.wires.items():
        if key[0] == "regions":
            yield "region_linked", link_fields(layout, key)
            if wire.broken:
                yield "region_link_broken", link_place(key)
        elif wire.broken:
            yield "service_lost", {"service": "relay", **link_place(key)}
    for scope, hosts in layout.names.hosts.items():
        for name, addresses in hosts.items():
            for address in addresses:
                yield "dns_entry_added", {"scope": scope, "name": name, "ip": str(address)}
