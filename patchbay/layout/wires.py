"""The wires of a layout: links that have a condition, and the places where the conditions act."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_network

from attrs import evolve

from patchbay.errors import Problem
from patchbay.layout import pools
from patchbay.layout.layout import (
    IfaceLayout,
    Layout,
    NodeLayout,
    RouteLayout,
    RouterKind,
    RouterLayout,
    VethEnd,
    WireKey,
    WireLayout,
    of_version,
    wire_counter,
)
from patchbay.model.link import PERFECT, Condition, combination_problems
from patchbay.model.names import IfName, NsName, slug, unique_name

__all__ = [
    "USUAL_MTU",
    "combined",
    "condition_of",
    "refreshed",
    "region_key",
    "uplinks",
    "with_broken",
    "with_conditions",
]

USUAL_MTU = 1500
# The bridges of wires are named by index when they are made; the kernel counts its own up from 1.
_FIRST_INDEX = 1_000_000


def condition_of(layout: Layout, key: WireKey) -> Condition:
    """Return the present condition of a link."""
    wire = layout.wires.get(key)
    return wire.condition if wire else PERFECT


def region_key(layout: Layout, a: str, b: str) -> WireKey:
    """Return the key of the link of two regions, whichever was named first."""
    back = ("regions", b, a)
    return back if back in layout.wires else ("regions", a, b)


def with_conditions(layout: Layout, conditions: Mapping[WireKey, Condition]) -> Layout:
    """Return the layout with links in conditions. A perfect link needs a wire between regions alone."""
    changing = _Changing(layout)
    for key, condition in conditions.items():
        changing.put(key, condition)
    return refreshed(changing.finish())


def combined(condition: Condition, path: str) -> Iterator[Problem]:
    """Yield the problems of the values of a link's condition together, which is at `path`."""
    for way, impairment in condition.ways:
        for key, text in combination_problems(impairment):
            yield Problem(f"{path}.{key}" if path else key, f"({way}) {text}")


def with_broken(layout: Layout, key: WireKey, *, broken: bool, lost: bool = False) -> Layout:
    """Return the layout with that wire cut, because its relay is `lost` or for other reasons; or mended."""
    wire = evolve(layout.wires[key], broken=broken, lost=lost)
    return evolve(layout, wires={**layout.wires, key: wire})


class _Changing:
    """The wires of a layout, and the names that they take, while they change."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._wires = dict(layout.wires)
        self._counters = dict(layout.allocations.counters)
        self._ifnames: dict[NsName, set[str]] = {}

    def finish(self) -> Layout:
        allocations = self._layout.allocations.with_ifnames(self._ifnames)
        allocations = evolve(allocations, counters=self._counters)
        return evolve(self._layout, wires=self._wires, allocations=allocations)

    def put(self, key: WireKey, condition: Condition) -> None:
        existing = self._wires.get(key)
        needed = bool(condition) or key[0] == "regions"
        if existing is None and needed:
            self._wires[key] = self._make(key, condition)
        elif existing is not None and not needed:
            del self._wires[key]
        elif existing is not None:
            # Whoever sets the condition of a link that was lost wants it back.
            broken = existing.broken and not existing.lost
            self._wires[key] = evolve(existing, condition=condition, broken=broken, lost=False)

    def _taken(self, ns: NsName) -> set[str]:
        if ns not in self._ifnames:
            self._ifnames[ns] = {*self._layout.allocations.taken_in(ns)}
        return self._ifnames[ns]

    def _make(self, key: WireKey, condition: Condition) -> WireLayout:
        kinds = {"link": self._device_wire, "downlink": self._downlink_wire, "regions": self._region_wire}
        return kinds[key[0]](key, condition)

    def _device_wire(self, key: WireKey, condition: Condition) -> WireLayout:
        device = self._layout.devices[key[1]]
        iface = next(iface for iface in device.ifaces if iface.name == key[2])
        far = VethEnd(iface.port, iface.port_mac, iface.name, iface.mac, device.ns)
        wire = self._wire(
            key,
            condition,
            f"the link of device '{device.name}' on {iface.name}",
            iface.router_ns,
            f"{device.ns}#{iface.name}",
            far,
        )
        return evolve(wire, mtu=iface.mtu if (iface.mtu or 0) > USUAL_MTU else None)

    def _downlink_wire(self, key: WireKey, condition: Condition) -> WireLayout:
        router = self._layout.forwarders[f"router:{key[1]}"]
        title = f"the downlink of router '{router.name}'"
        wire = self._wire(key, condition, title, router.ns, f"{router.ns}#downlink")
        return evolve(wire, below=IfName(f"{wire.bridge}-all"))

    def _region_wire(self, key: WireKey, condition: Condition) -> WireLayout:
        first, second = (self._layout.forwarders[f"region:{name}"] for name in key[1:])
        title = f"the link of regions '{first.name}' and '{second.name}'"
        to_first, to_second = self._way(second, first), self._way(first, second)
        wire = self._wire(key, condition, title, second.ns, f"{second.ns}#{to_first}")
        far = self._end(second.ns, wire.bridge, "far", to_second, first.ns)
        return evolve(wire, far=far, near=self._end(second.ns, wire.bridge, "near", to_first, second.ns))

    def _way(self, here: RouterLayout, there: RouterLayout) -> IfName:
        """Return a name that is never given out again, because the old way may still be there."""
        name = unique_name(slug(f"to-{there.name}", 15), self._taken(here.ns), 15)
        self._taken(here.ns).add(name)
        return IfName(name)

    def _wire(
        self,
        key: WireKey,
        condition: Condition,
        title: str,
        ns: NsName,
        owner: str,
        far: VethEnd | None = None,
    ) -> WireLayout:
        number = self._number(ns)
        bridge = IfName(f"wire{number}")
        return WireLayout(
            key=key,
            title=title,
            ns=ns,
            owner=owner,
            bridge=bridge,
            bridge_mac=pools.mac_of(ns, bridge),
            index=_FIRST_INDEX + number,
            far=far or self._end(ns, bridge, "far", IfName(f"{bridge}-below"), ns),
            near=self._end(ns, bridge, "near", IfName(f"{bridge}-lan"), ns),
            condition=condition,
        )

    def _end(self, ns: NsName, bridge: IfName, side: str, peer: IfName, peer_ns: NsName) -> VethEnd:
        name = IfName(f"{bridge}-{side}")
        return VethEnd(name, pools.mac_of(ns, name), peer, pools.mac_of(peer_ns, peer), peer_ns)

    def _number(self, ns: NsName) -> int:
        """Return a number that is never given out again, because the old wire may still be there."""
        what = wire_counter(ns)
        number = self._counters.get(what, 1)
        self._counters[what] = number + 1
        return number


# -- what follows from the rest of the layout


def uplinks(layout: Layout) -> Iterator[tuple[NodeLayout, IfaceLayout]]:
    """Return every uplink, with the node that has it."""
    for node in layout.nodes():
        for iface in node.ifaces:
            yield node, iface


def refreshed(layout: Layout) -> Layout:
    """Return the layout whose wires know of every node."""
    return evolve(layout, wires={key: _refreshed(layout, wire) for key, wire in layout.wires.items()})


def _refreshed(layout: Layout, wire: WireLayout) -> WireLayout:
    if wire.key[0] == "downlink":
        # A bridge has the least MTU of its ports, and `lan` has only one left.
        mtus = [max(USUAL_MTU, iface.mtu or 0) for _, iface in uplinks(layout) if iface.router_ns == wire.ns]
        least = min(mtus, default=USUAL_MTU)
        return evolve(wire, mtu=least if least > USUAL_MTU else None)
    if wire.key[0] == "regions":
        first, second = (layout.forwarders[f"region:{name}"] for name in wire.key[1:])
        reached = _behind(layout)
        return evolve(
            wire,
            routes=(
                *_routes(first, wire.far.peer, second, reached[second.ns]),
                *_routes(second, wire.near.peer, first, reached[first.ns]),
            ),
        )
    return wire


def _behind(layout: Layout) -> Mapping[NsName, list[RouteLayout]]:
    """Return the prefixes that the exchange sends to each region."""
    gates = {
        address.ip: region.ns
        for region in layout.forwarders.values()
        if region.kind is RouterKind.REGION and region.uplink
        for address in region.uplink.addresses
    }
    found: dict[NsName, list[RouteLayout]] = {ns: [] for ns in gates.values()}
    for node in layout.nodes():
        for route in node.routes:
            if route.ns == layout.ix.ns and (gate := gates.get(route.via) if route.via else None):
                found[gate].append(route)
    return found


def _routes(
    here: RouterLayout, dev: IfName, other: RouterLayout, reached: list[RouteLayout]
) -> Iterator[RouteLayout]:
    """Return the routes from one region to the networks behind another, by the other's LAN address."""
    for address in other.lan.addresses:
        yield RouteLayout(here.ns, ip_network(address.ip), dev)
    for route in reached:
        gateway = of_version(other.lan.addresses, route.prefix.version)
        if gateway:
            yield RouteLayout(here.ns, route.prefix, dev, gateway.ip)
