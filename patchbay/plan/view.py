"""A layout as plans look at it: with what they ask for often already found."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from patchbay.layout.layout import LAN, DeviceLayout, IfaceLayout, Layout, NodeLayout, VethEnd, WireLayout
from patchbay.model.link import Emulator
from patchbay.model.names import IfName, NsName
from patchbay.plan.resources import Key
from patchbay.tools.ip import BRIDGE_INDEX

__all__ = ["NODES_WITH_ARP", "Bridge", "View", "below_of", "emulator_of", "end_key", "view_of"]

# Above this many nodes the neighbour entries are installed: the kernel has room for 1024 in all
# namespaces together (net.ipv4.neigh.default.gc_thresh3), about four for each node.
NODES_WITH_ARP = 200

# Between the index of a wire's own bridge and that of the bridge below it.
_BELOW = 1_000_000


@frozen
class Bridge:
    """A bridge by its name, and by the index that a new port names it by."""

    name: IfName
    index: int


@frozen
class View:
    """`quiet`: neighbours are permanent, so that nobody asks by ARP. `downlinks`: wires by router."""

    layout: Layout
    quiet: bool
    downlinks: Mapping[NsName, WireLayout]

    def wire_of(self, node: NodeLayout, iface: IfaceLayout) -> WireLayout | None:
        """Return the wire of an uplink. Only devices have one: a region may have a device's name."""
        if not isinstance(node, DeviceLayout):
            return None
        return self.layout.wires.get(("link", node.name, iface.name))

    def is_conditioned(self, node: NodeLayout, iface: IfaceLayout) -> bool:
        """Return True if packets between the node and the router above pass a wire."""
        return iface.router_ns in self.downlinks or self.wire_of(node, iface) is not None

    def master_of(self, node: NodeLayout, iface: IfaceLayout) -> Bridge:
        """Return the bridge that the uplink's port belongs to."""
        wire = self.wire_of(node, iface)
        return Bridge(wire.bridge, wire.index) if wire else self.ports_of(iface.router_ns)

    def ports_of(self, router: NsName) -> Bridge:
        """Return the bridge of everything below a router: the LAN, or what is below its downlink's wire."""
        wire = self.downlinks.get(router)
        return below_of(wire) if wire and wire.below else Bridge(LAN, BRIDGE_INDEX)


def emulator_of(layout: Layout, wire: WireLayout) -> Emulator | None:
    """Return what acts on a wire's packets; None where nothing has to. Only the relay can replay a trace."""
    if not wire.condition:
        return None
    if any(impairment.trace for _, impairment in wire.condition.ways):
        return Emulator.USERSPACE
    return Emulator.USERSPACE if layout.emulator is Emulator.USERSPACE else Emulator.NETEM


def end_key(end: VethEnd) -> Key:
    """Return the key of the veth that an end of a wire belongs to: that of its other side."""
    return "link", end.peer_ns, end.peer


def below_of(wire: WireLayout) -> Bridge:
    """Return the bridge below a downlink's wire."""
    assert wire.below
    return Bridge(wire.below, wire.index + _BELOW)


def view_of(layout: Layout) -> View:
    count = len(layout.forwarders) + len(layout.devices)
    downlinks = {wire.ns: wire for wire in layout.wires.values() if wire.below}
    return View(layout, count > NODES_WITH_ARP, downlinks)
