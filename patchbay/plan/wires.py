"""The kernel resources of wires: bridges and veth ends, and the settings that lead packets through."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from patchbay.layout.layout import (
    LAN,
    IfaceLayout,
    Layout,
    NodeLayout,
    RouterKind,
    RouterLayout,
    VethEnd,
    WireKey,
    WireLayout,
    of_version,
)
from patchbay.layout.wires import USUAL_MTU
from patchbay.model.link import Emulator
from patchbay.model.names import IfName, NsName
from patchbay.plan.conditions import acting
from patchbay.plan.parts import neighbour, route_resource
from patchbay.plan.resources import GONE, Key, Phase, Resource, Resources
from patchbay.plan.view import View, below_of, emulator_of, end_key
from patchbay.tools import ip
from patchbay.tools.commands import Ip, SetSysctl

__all__ = ["device_wire", "downlink_wire", "region_wire", "settle"]


def device_wire(view: View, node: NodeLayout, iface: IfaceLayout) -> Resources:
    """Return the wire of a device's link, if it has one: the device's port is its far end."""
    if wire := view.wire_of(node, iface):
        yield from _bridge(view, wire)
        yield from _end(wire, wire.near)
        yield from _master(wire, wire.near.peer, view.ports_of(wire.ns).name)
        yield from _carrier(wire)
        yield from acting(view, wire)


def downlink_wire(view: View, router: RouterLayout) -> Resources:
    """Return the wire between a router's LAN and a bridge with everything that is below it."""
    wire = view.downlinks.get(router.ns)
    if router.kind is RouterKind.ROUTER and wire:
        # Nothing is ever sent from either, so its MAC may be that of the port which leads to it.
        below = below_of(wire)
        yield from _bridge(view, wire)
        why = _why(wire)
        make = Ip(
            None,
            ip.wire_bridge(wire, below.name, wire.far.peer_mac, below.index, up=True),
            why=why,
            owner=wire.owner,
        )
        yield _thing(wire, below.name, make)
        yield from _whole(view, wire)
        yield from _master(wire, wire.far.peer, below.name)
        yield from _master(wire, wire.near.peer, LAN)


def region_wire(view: View, wire: WireLayout) -> Resources:
    """Return the wire between two regions, with routes to what is behind each."""
    yield from _bridge(view, wire)
    yield from _whole(view, wire)
    for end in (wire.far, wire.near):
        why, setting, inside = f"start {wire.title}", ip.no_ipv6(end.peer), (end_key(end),)
        yield (
            ("sysctl", end.peer_ns, setting),
            Resource((SetSysctl(end.peer_ns, setting, "0", why=why, owner=wire.owner),), within=inside),
        )
        up = Ip(end.peer_ns, ip.link_up(end.peer), why=why, owner=wire.owner)
        yield ("up", end.peer_ns, end.peer), Resource((up,), phase=Phase.LEAD, within=inside)
    yield from _region_neighbours(view.layout, wire)
    ends = {wire.far.peer: wire.far, wire.near.peer: wire.near}
    for route in wire.routes:
        why = f"lead packets over {wire.title}"
        yield route_resource(route, why, wire.owner, end_key(ends[route.dev]), Phase.LEAD)


def _why(wire: WireLayout) -> str:
    return f"make room for the condition of {wire.title}"


def _thing(wire: WireLayout, name: IfName, make: Ip) -> tuple[Key, Resource]:
    why = f"take the condition of {wire.title} away"
    return ("link", wire.ns, name), Resource(
        (make,),
        (Ip(wire.ns, ip.link_del(name), why=why, owner=wire.owner, tolerate=GONE),),
        Phase.BRIDGE,
        within=(("netns", wire.ns),),
        fixed=True,
        late=True,
    )


def _bridge(view: View, wire: WireLayout) -> Resources:
    """Up where the kernel moves packets from one end to the other, down where a relay does."""
    up = emulator_of(view.layout, wire) is not Emulator.USERSPACE
    make = Ip(
        None,
        ip.wire_bridge(wire, wire.bridge, wire.bridge_mac, wire.index, up=up),
        why=_why(wire),
        owner=wire.owner,
    )
    key, resource = _thing(wire, wire.bridge, make)
    yield key, evolve(resource, identity=wire.bridge_mac)
    why = f"{'let the kernel' if up else 'let a relay'} move packets through {wire.title}"
    change = ip.link_up(wire.bridge) if up else ip.link_down(wire.bridge)
    yield (
        ("state", wire.ns, wire.bridge),
        Resource(
            (Ip(wire.ns, change, why=why, owner=wire.owner),), phase=Phase.LEAD, within=(key,), comes_with=key
        ),
    )


def _whole(view: View, wire: WireLayout) -> Resources:
    """Return both ends of the wire, and what acts on packets at them."""
    yield from _end(wire, wire.near)
    yield from _end(wire, wire.far)
    yield from _carrier(wire)
    yield from acting(view, wire)


def _end(wire: WireLayout, end: VethEnd) -> Resources:
    """Return a veth of the wire, with the MTU of the link."""
    _, resource = _thing(wire, end.name, Ip(None, ip.wire_end(wire, end), why=_why(wire), owner=wire.owner))
    # One that leads to another namespace is deleted by name, as that of a node's uplink is.
    within = resource.within if wire.ns == end.peer_ns else ()
    yield end_key(end), evolve(resource, within=within, identity=(end.mac, end.peer_mac))
    if wire.mtu is None:
        return
    why = f"let {wire.title} carry what its ports do"
    for ns, name in ((wire.ns, end.name), (end.peer_ns, end.peer)):
        yield (
            ("mtu", ns, name),
            Resource(
                (Ip(ns, ip.link_mtu(name, wire.mtu), why=why, owner=wire.owner),),
                (Ip(ns, ip.link_mtu(name, USUAL_MTU), why=why, owner=wire.owner, tolerate=GONE),),
                Phase.LEAD,
                within=(end_key(end),),
                comes_with=end_key(end),
            ),
        )


def _master(wire: WireLayout, name: IfName, bridge: IfName) -> Resources:
    """Make the peer of an end a port, because a veth is made with a master on one side alone."""
    why = f"lead packets through {wire.title}"
    yield (
        ("master", wire.ns, name),
        Resource(
            (Ip(wire.ns, ip.link_master(name, bridge), why=why, owner=wire.owner),),
            phase=Phase.LEAD,
            within=(("link", wire.ns, name),),
        ),
    )


def _carrier(wire: WireLayout) -> Resources:
    """Set the ends of a broken wire down, so that their peers see no carrier."""
    for end in (wire.far, wire.near) if wire.broken else ():
        yield (
            ("carrier", wire.ns, end.name),
            Resource(
                (Ip(wire.ns, ip.link_down(end.name), why=f"break {wire.title}", owner=wire.owner),),
                (
                    Ip(
                        wire.ns,
                        ip.link_up(end.name),
                        why=f"restore {wire.title}",
                        owner=wire.owner,
                        tolerate=GONE,
                    ),
                ),
                Phase.LEAD,
                within=(end_key(end),),
            ),
        )


def _region_neighbours(layout: Layout, wire: WireLayout) -> Resources:
    first, second = (layout.forwarders[f"region:{name}"] for name in wire.key[1:])
    why = "spare ARP between regions"
    for here, there, end, other in (
        (first, second, wire.far, wire.near),
        (second, first, wire.near, wire.far),
    ):
        for version in (4, 6):
            if gateway := of_version(there.lan.addresses, version):
                mac, key = other.peer_mac, end_key(end)
                yield neighbour(here.ns, gateway.ip, mac, end.peer, why, wire.owner, key, Phase.LEAD)


def settle(old: Layout | None, new: Layout, changed: list[WireKey]) -> Iterator[tuple[NsName, IfName]]:
    """Return the interfaces that the barrier waits for: ports of bridges before the bridges.

    A port whose carrier has come forwards once the link watch has seen it (br_port_carrier_check).
    """
    before = old.wires if old else {}
    for wire in (new.wires[key] for key in changed if key in new.wires and not new.wires[key].broken):
        yield from ((end.peer_ns, end.peer) for end in (wire.far, wire.near))
        yield from ((wire.ns, end.name) for end in (wire.far, wire.near))
        yield from ((wire.ns, bridge) for bridge in (wire.bridge, wire.below) if bridge)
    staying = {forwarder.ns for forwarder in new.forwarders.values()} if changed else set()
    for key in changed:
        ns = (new.wires.get(key) or before[key]).ns
        if key[0] != "regions" and ns in staying:
            yield ns, LAN
