"""The commands by which the wires of one layout become those of another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import evolve

from patchbay.layout.layout import (
    LAN,
    Address,
    IfaceLayout,
    Layout,
    NodeLayout,
    WireKey,
    WireLayout,
    of_version,
)
from patchbay.layout.wires import USUAL_MTU, uplinks
from patchbay.model.link import PERFECT, Emulator
from patchbay.model.names import IfName, NsName
from patchbay.plan.aspects import GONE, Aspect, Aspects, differences
from patchbay.plan.conditions import acting, checks, emulator_of, relays
from patchbay.plan.plan import Stage
from patchbay.tools import ip
from patchbay.tools.commands import Command, EndHelper, Helper, Ip, SetSysctl

__all__ = ["endings", "settle", "stages"]


def stages(
    old: Layout | None, new: Layout, gone: set[NsName], anew: set[NsName], *, was_quiet: bool, quiet: bool
) -> Iterator[Stage]:
    """What turns the wires of `old` into those of `new`, once new nodes are there and those `gone` not.

    Each step begins when the last is done whole: what new wires consist of; what acts in them; the end of
    what acted before; and then packets are led another way. Nodes in `anew` were taken away and made again.
    `quiet`: nodes have permanent neighbours anyway.
    """
    before = old if old is not None else _without_wires(new)
    if not new.wires and not before.wires:
        return
    made = [wire for key, wire in new.wires.items() if _anew(before.wires.get(key), wire, anew)]
    lost = [wire for key, wire in before.wires.items() if _shell(new.wires.get(key)) != _shell(wire)]
    if {place for wire in made for place in wire.names} & {place for wire in lost for place in wire.names}:
        # What comes takes the names of what goes: first all goes, then it comes.
        kept = {key: wire for key, wire in new.wires.items() if _shell(before.wires.get(key)) == _shell(wire)}
        rest = evolve(new, wires=kept)
        # To take such a change back from its middle, what it did not come to end has to be ended.
        yield Stage(make=tuple(_ends(new, made)))
        yield from stages(before, rest, gone, anew, was_quiet=was_quiet, quiet=quiet)
        first, *others = stages(rest, new, set(), set(), was_quiet=quiet, quiet=quiet)
        yield from (evolve(first, settled=True), *others)
        return
    helpers = list(differences(relays(before), relays(new), anew=anew))
    ended = {*_endings(before, gone)}
    leading = [
        *differences(_leading(before), _leading(new), gone, anew),
        *differences(
            _neighbours(before, quiet=quiet or was_quiet), _neighbours(new, quiet=quiet), gone, anew
        ),
    ]
    yield Stage(make=tuple(command for wire in made for command in _links(wire)))
    yield Stage(
        configure=(
            *differences(acting(before), acting(new), gone, anew),
            *checks(before, new),
            *(command for command in helpers if isinstance(command, Helper)),
        ),
        settled=True,
    )
    ends = (command for command in helpers if isinstance(command, EndHelper) and command not in ended)
    yield Stage(make=tuple(ends), settled=True)
    removals = [command for wire in lost for command in _removal(wire, gone)]
    yield Stage(configure=(*leading, *removals), settled=True)


def endings(old: Layout | None, gone: set[NsName]) -> Iterator[Stage]:
    """The end of relays whose interfaces go with the namespaces `gone`, before they do."""
    yield Stage(make=tuple(_endings(old, gone)) if old else ())


def _endings(old: Layout, gone: set[NsName]) -> Iterator[Command]:
    leaving = (w for w in old.wires.values() if not gone.isdisjoint((w.ns, w.far.peer_ns, w.near.peer_ns)))
    return _ends(old, leaving)


def _ends(layout: Layout, wires: Iterable[WireLayout]) -> Iterator[Command]:
    """The end of the relays of these wires."""
    for aspect in relays(evolve(layout, wires={wire.key: wire for wire in wires})).values():
        if aspect.undo:
            yield aspect.undo


def _anew(old: WireLayout | None, wire: WireLayout, anew: set[NsName]) -> bool:
    """Whether the interfaces of a wire have to be made."""
    return _shell(old) != _shell(wire) or wire.ns in anew


def _without_wires(layout: Layout) -> Layout:
    return evolve(layout, wires={})


def settle(old: Layout | None, new: Layout) -> Iterator[tuple[NsName, IfName]]:
    """The interfaces that have to carry packets when all is done: the ports of bridges before the bridges.

    A port whose carrier has come forwards once the link watch has seen it (br_port_carrier_check).
    """
    before = old.wires if old else {}
    changed = [key for key in {**before, **new.wires} if before.get(key) != new.wires.get(key)]
    for wire in (new.wires[key] for key in changed if key in new.wires and not new.wires[key].broken):
        yield from ((end.peer_ns, end.peer) for end in (wire.far, wire.near))
        yield from ((wire.ns, end.name) for end in (wire.far, wire.near))
        yield from ((wire.ns, bridge) for bridge in (wire.bridge, wire.below) if bridge)
    yield from (((new.wires.get(key) or before[key]).ns, LAN) for key in changed if key[0] != "regions")


def _shell(wire: WireLayout | None) -> WireLayout | None:
    """The wire as the interfaces that it consists of."""
    return wire and evolve(wire, condition=PERFECT, mtu=None, broken=False, lost=False, routes=())


# -- the interfaces of a wire


def _links(wire: WireLayout) -> Iterator[Command]:
    why = f"make room for the condition of {wire.title}"
    bridges = [(wire.bridge, wire.bridge_mac), *([(wire.below, _below_mac(wire))] if wire.below else [])]
    for name, mac in bridges:
        yield Ip(None, ip.wire_bridge(wire, name, mac, up=name == wire.below), why, wire.owner)
    for end in (wire.near, wire.far) if wire.makes_far else (wire.near,):
        yield Ip(None, ip.wire_end(wire, end), why, wire.owner)


def _below_mac(wire: WireLayout) -> str:
    # The same as that of the port which leads to it: nothing is ever sent from either.
    return wire.far.peer_mac


def _removal(wire: WireLayout, gone: set[NsName]) -> Iterator[Command]:
    """Also of a wire that goes with its namespace: its ends in others stay a while, and keep their names."""
    why = f"take the condition of {wire.title} away"
    ends = (wire.near, wire.far) if wire.makes_far else (wire.near,)
    if wire.ns in gone:
        places = [(end.peer_ns, end.peer) for end in ends if end.peer_ns not in gone]
    else:
        inside = (*(end.name for end in ends), *((wire.below,) if wire.below else ()), wire.bridge)
        places = [(wire.ns, name) for name in inside]
    for number, (ns, name) in enumerate(places, 1):
        last = wire.owner if number == len(places) else ""
        yield Ip(ns, ip.link_del(name), why, wire.owner, GONE, ends=last)


# -- how packets are led


def _leading(layout: Layout) -> Aspects:
    """First the ways through, so that the way round is gone for as short as can be."""
    found = _masters(layout)
    for wire in layout.wires.values():
        found |= _carriers(layout, wire)
        found |= _mtus(wire)
        if wire.key[0] == "regions":
            found |= _region_ways(wire)
    return found


def _masters(layout: Layout) -> Aspects:
    """Which bridge each interface hangs in; without any wire it would be the LAN."""
    belows = {wire.ns: wire.below for wire in layout.wires.values() if wire.below}
    found: Aspects = {}
    for wire in layout.wires.values():
        if wire.below:
            for node, iface in uplinks(layout):
                if iface.router_ns == wire.ns:
                    found |= _master(wire, iface.port, wire.below, node.ns)
            found |= _master(wire, wire.far.peer, wire.below, wire.owner)
            found |= _master(wire, wire.near.peer, LAN, wire.owner)
    for wire in layout.wires.values():
        if not wire.makes_far:
            found |= _master(wire, wire.far.name, wire.bridge, wire.far.peer_ns)
            found |= _master(wire, wire.near.peer, belows.get(wire.ns, LAN), wire.owner)
    return found


def _master(wire: WireLayout, name: IfName, bridge: IfName, owner: str) -> Aspects:
    why, slot = f"lead packets through {wire.title}", f"master {name}"
    # What is there for the wire alone goes with it.
    back = Ip(wire.ns, ip.link_master(name, LAN), why, owner, GONE, slot) if owner != wire.owner else None
    return {
        ("master", wire.ns, name): Aspect(
            Ip(wire.ns, ip.link_master(name, bridge), why, owner, slot=slot), back
        )
    }


def _carriers(layout: Layout, wire: WireLayout) -> Aspects:
    """Up or down: the bridge between the ends where the kernel moves packets, the ends of a broken wire."""
    found: Aspects = {}
    if emulator_of(layout, wire) is not Emulator.USERSPACE:
        why = f"let packets pass {wire.title}"
        found["bridge", wire.ns, wire.bridge] = Aspect(
            Ip(wire.ns, ip.link_up(wire.bridge), why, wire.owner, slot=f"state {wire.bridge}"),
            Ip(wire.ns, ip.link_down(wire.bridge), why, wire.owner, GONE, f"state {wire.bridge}"),
        )
    for end in (wire.far, wire.near) if wire.broken else ():
        why, slot = f"break {wire.title}", f"state {end.name}"
        found["carrier", wire.ns, end.name] = Aspect(
            Ip(wire.ns, ip.link_down(end.name), why, wire.owner, slot=slot),
            Ip(wire.ns, ip.link_up(end.name), f"restore {wire.title}", wire.owner, GONE, slot),
        )
    return found


def _mtus(wire: WireLayout) -> Aspects:
    if wire.mtu is None:
        return {}
    found: Aspects = {}
    own = (wire.far.peer, wire.far.name) if wire.makes_far else ()
    for name in (*own, wire.near.name, wire.near.peer):
        why, slot = f"let {wire.title} carry what its ports do", f"mtu {name}"
        found["mtu", wire.ns, name] = Aspect(
            Ip(wire.ns, ip.link_mtu(name, wire.mtu), why, wire.owner, slot=slot),
            Ip(wire.ns, ip.link_mtu(name, USUAL_MTU), why, wire.owner, GONE, slot),
        )
    return found


def _region_ways(wire: WireLayout) -> Aspects:
    found: Aspects = {}
    for end in (wire.far, wire.near):
        why, setting = f"start {wire.title}", f"net/ipv6/conf/{end.peer}/disable_ipv6"
        found["ipv6", end.peer_ns, end.peer] = Aspect(SetSysctl(end.peer_ns, setting, "0", why, wire.owner))
        found["up", end.peer_ns, end.peer] = Aspect(Ip(end.peer_ns, ip.link_up(end.peer), why, wire.owner))
    for route in wire.routes:
        why = f"lead packets over {wire.title}"
        found["route", route.ns, str(route.prefix), route.dev] = Aspect(
            Ip(route.ns, ip.route_add(route), why, wire.owner),
            Ip(route.ns, ip.route_del(route), why, wire.owner, GONE),
        )
    return found


# -- neighbours


def _neighbours(layout: Layout, *, quiet: bool) -> Aspects:
    """Over a wire nobody has to be asked for: ARP would cross the delay too, and might be lost.

    `quiet`: those that every node has anyway are left out.
    """
    cut = {wire.far.name + "@" + wire.ns for wire in layout.wires.values() if not wire.makes_far}
    below = {wire.ns for wire in layout.wires.values() if wire.below}
    found: Aspects = {}
    for node, iface in () if quiet else uplinks(layout):
        if iface.router_ns in below or f"{iface.port}@{iface.router_ns}" in cut:
            found |= _neighbours_of(node, iface)
    for key, wire in layout.wires.items():
        if key[0] == "regions":
            found |= _region_neighbours(layout, key, wire)
    return found


def _neighbours_of(node: NodeLayout, iface: IfaceLayout) -> Aspects:
    found: Aspects = {}
    for address, gateway in zip(iface.addresses, iface.gateways, strict=True):
        found |= _entry(node.ns, gateway, iface.router_lan.mac, iface.name, node.ns)
        found |= _entry(iface.router_ns, address.ip, iface.mac, iface.router_lan.bridge, node.ns)
    return found


def _region_neighbours(layout: Layout, key: WireKey, wire: WireLayout) -> Aspects:
    first, second = (layout.forwarders[f"region:{name}"] for name in key[1:])
    found: Aspects = {}
    for here, there, end, other in (
        (first, second, wire.far, wire.near),
        (second, first, wire.near, wire.far),
    ):
        for version in (4, 6):
            if gateway := of_version(there.lan.addresses, version):
                found |= _entry(here.ns, gateway.ip, other.peer_mac, end.peer, wire.owner)
    return found


def _entry(ns: NsName, address: Address, mac: str, dev: IfName, owner: str) -> Aspects:
    why, slot = "let no neighbour be asked for over a link with a condition", f"neigh {dev} {address}"
    return {
        ("neigh", ns, dev, str(address)): Aspect(
            Ip(ns, ip.neigh_set(address, mac, dev), why, owner, slot=slot),
            Ip(ns, ip.neigh_forget(address, dev), why, owner, GONE, slot),
        )
    }
