"""Taking a node out of a layout, with everything that is there for the node alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from attrs import evolve

from patchbay.layout.layout import (
    Layout,
    NodeLayout,
    RouterLayout,
    WireKey,
    host_counter,
    wire_counter,
)
from patchbay.layout.wires import refreshed, with_conditions
from patchbay.model.link import PERFECT
from patchbay.model.names import NsName

__all__ = ["without_node"]

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


def without_node(layout: Layout, node: NodeLayout) -> Layout:
    """Return the layout without `node`, which has nothing below it.

    Its names are free again, and so are its MACs, because they follow from names. Its addresses are not
    given out a second time, so that old packets never reach somebody else.
    """
    layout = _without_policy(with_conditions(layout, dict.fromkeys(_own_wires(layout, node), PERFECT)), node)
    if isinstance(node, RouterLayout):
        layout = evolve(layout, forwarders=_without(layout.forwarders, node.key))
    else:
        layout = evolve(layout, devices=_without(layout.devices, node.name))
    return refreshed(_freed(evolve(layout, names=layout.names.without(node.name)), node))


def _own_wires(layout: Layout, node: NodeLayout) -> list[WireKey]:
    if isinstance(node, RouterLayout):
        return [key for key in (("downlink", node.name),) if key in layout.wires]
    links = (("link", node.name, iface.name) for iface in node.ifaces)
    return [key for key in links if key in layout.wires]


def _without_policy(layout: Layout, node: NodeLayout) -> Layout:
    return evolve(layout, policies=_without(layout.policies, node.ns))


def _without(mapping: Mapping[KeyT, ValueT], key: KeyT) -> Mapping[KeyT, ValueT]:
    return {name: value for name, value in mapping.items() if name != key}


def _freed(layout: Layout, node: NodeLayout) -> Layout:
    given = layout.allocations
    ports: dict[NsName, set[str]] = {}
    own = {host_counter(node.ns), wire_counter(node.ns)}
    macs = {iface.mac for iface in node.ifaces} | {iface.port_mac for iface in node.ifaces}
    if isinstance(node, RouterLayout):
        macs.add(node.lan.mac)
    for iface in node.ifaces:
        ports.setdefault(iface.router_ns, {*given.taken_in(iface.router_ns)}).discard(iface.port)
    ifnames = {ns: names for ns, names in given.with_ifnames(ports).ifnames.items() if ns != node.ns}
    allocations = evolve(
        given,
        ns_names=given.ns_names - {node.ns},
        ifnames=ifnames,
        macs=given.macs - macs,
        # By their whole keys, because a pool's name may end with that of a node: "public IPv6".
        counters={what: n for what, n in given.counters.items() if what not in own},
    )
    return evolve(layout, allocations=allocations)
