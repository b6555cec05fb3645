"""The arguments of `ip` commands (iproute2).

Always `name X` and `dev X`: a bare name that abbreviates a keyword is read as the keyword.
"""

from __future__ import annotations

from patchbay.layout.layout import (
    Address,
    IfaceLayout,
    Interface,
    LanLayout,
    Network,
    RouteLayout,
    VethEnd,
    WireLayout,
)
from patchbay.model.names import IfName, NsName

__all__ = [
    "BRIDGE_INDEX",
    "USUAL_MTU",
    "addr_add",
    "addr_del",
    "bridge_add",
    "default_route",
    "default_route_del",
    "default_route_replace",
    "link_del",
    "link_down",
    "link_gso",
    "link_master",
    "link_mtu",
    "link_up",
    "neigh_forget",
    "neigh_set",
    "netns_add",
    "netns_del",
    "no_ipv6",
    "on_link",
    "on_link_del",
    "route_add",
    "route_del",
    "unreachable",
    "unreachable_del",
    "veth_add",
    "veth_mtus",
    "wire_bridge",
    "wire_end",
]

Args = tuple[str, ...]

# `master ifN` names a bridge by its index in the namespace that the link is made for, so that the
# link needs no second command; so every bridge is made with this index.
BRIDGE_INDEX = 10

# Of an interface that is made without any; drivers/net/veth.c and net/bridge have it from Ethernet.
USUAL_MTU = 1500


# veth makes a queue for each processor, then closes all but one of them, which waits 0.2 ms for RCU with
# the lock that every other link needs (veth_newlink -> netif_set_real_num_tx_queues).
_ONE_QUEUE = ("numtxqueues", "1", "numrxqueues", "1")


def netns_add(ns: NsName) -> Args:
    return ("netns", "add", ns)


def netns_del(ns: NsName) -> Args:
    return ("netns", "del", ns)


def bridge_add(ns: NsName, lan: LanLayout) -> Args:
    """Snooping is off: without a querier it only adds a state that captures do not show."""
    return (
        "link", "add", "name", lan.bridge, "index", str(BRIDGE_INDEX), "netns", ns,
        "address", lan.mac, "type", "bridge", "mcast_snooping", "0",
    )  # fmt: skip


def veth_add(ns: NsName, iface: IfaceLayout, master: int) -> Args:
    """Make both ends in their namespaces at once, because moving a link costs 16 ms.

    `master` is the index of the bridge that the port belongs to.
    """
    mtu = ("mtu", str(iface.mtu)) if iface.mtu is not None else ()
    port_mtu = mtu if len(veth_mtus(ns, iface)) > 1 else ()
    return (
        "link", "add", "name", iface.port, *port_mtu, *_ONE_QUEUE, "netns", iface.router_ns,
        "master", f"if{master}", "address", iface.port_mac, "up",
        "type", "veth", "peer", "name", iface.name, *_ONE_QUEUE, "netns", ns, "address", iface.mac, *mtu,
    )  # fmt: skip


def veth_mtus(ns: NsName, iface: IfaceLayout) -> tuple[tuple[NsName, IfName, int], ...]:
    """Return (namespace, interface, MTU) of the ends of an uplink whose MTU is not the usual one.

    A veth end drops what is longer than its own MTU. A port that is shorter would lower that of the LAN.
    """
    if iface.mtu is None:
        return ()
    port = ((iface.router_ns, iface.port, iface.mtu),) if iface.mtu > USUAL_MTU else ()
    return ((ns, iface.name, iface.mtu), *port)


def wire_bridge(wire: WireLayout, name: IfName, mac: str, index: int, *, up: bool) -> Args:
    """Make the bridge of a wire. While it is down, what arrives at its ports goes no further.

    Without ARP: it would answer for its router, as every interface of a host does.
    """
    return (
        "link", "add", "name", name, "index", str(index), "netns", wire.ns, "address", mac, "arp", "off",
        *(("up",) if up else ()),
        "type", "bridge", "mcast_snooping", "0",
    )  # fmt: skip


def wire_end(wire: WireLayout, end: VethEnd) -> Args:
    mtu = ("mtu", str(wire.mtu)) if wire.mtu is not None else ()
    return (
        "link", "add", "name", end.name, *mtu, *_ONE_QUEUE, "netns", wire.ns,
        "master", f"if{wire.index}", "address", end.mac, "up",
        "type", "veth", "peer", "name", end.peer, *mtu, *_ONE_QUEUE,
        "netns", end.peer_ns, "address", end.peer_mac,
    )  # fmt: skip


def link_master(name: IfName, bridge: IfName) -> Args:
    return ("link", "set", "dev", name, "master", bridge, "up")


def link_gso(name: IfName, segments: int) -> Args:
    """Set how many packets may travel as one."""
    return ("link", "set", "dev", name, "gso_max_segs", str(segments))


def link_mtu(name: IfName, mtu: int) -> Args:
    return ("link", "set", "dev", name, "mtu", str(mtu))


def link_down(name: IfName) -> Args:
    return ("link", "set", "dev", name, "down")


def link_up(name: IfName) -> Args:
    return ("link", "set", "dev", name, "up")


def link_del(name: IfName) -> Args:
    return ("link", "del", "dev", name)


def addr_add(address: Interface, dev: IfName) -> Args:
    # Without DAD on the link (accept_dad=0) a worker would still have to come by before an IPv6 address
    # answers, unless this is set.
    nodad = ("nodad",) if address.version == 6 else ()
    return ("addr", "add", str(address), "dev", dev, *nodad)


def addr_del(address: Interface, dev: IfName) -> Args:
    return ("addr", "del", str(address), "dev", dev)


def default_route(gateway: Address, dev: IfName) -> Args:
    """Name the default route of a family, because `default` is IPv4's, and a batch cannot say `-6`."""
    everything = "::/0" if gateway.version == 6 else "default"
    return ("route", "add", everything, "via", str(gateway), "dev", dev)


def default_route_replace(gateway: Address, dev: IfName) -> Args:
    return ("route", "replace", *default_route(gateway, dev)[2:])


def default_route_del(gateway: Address, dev: IfName) -> Args:
    return ("route", "del", *default_route(gateway, dev)[2:])


def on_link(neighbour: Address, dev: IfName) -> Args:
    """Add a route to a neighbour that no address on `dev` covers."""
    return ("route", "add", f"{neighbour}/{neighbour.max_prefixlen}", "dev", dev)


def on_link_del(neighbour: Address, dev: IfName) -> Args:
    return ("route", "del", *on_link(neighbour, dev)[2:])


def _route(route: RouteLayout) -> Args:
    via = ("via", str(route.via)) if route.via else ()
    # Without the lock, IPv6 routes take the MTU of their interface each time that it changes, and a bridge
    # has that of its smallest port (rt6_mtu_change_route in net/ipv6/route.c, br_mtu_auto_adjust).
    locked = ("lock",) if route.prefix.version == 6 else ()
    mtu = ("mtu", *locked, str(route.mtu)) if route.mtu is not None else ()
    return (str(route.prefix), *via, "dev", route.dev, *mtu)


def route_add(route: RouteLayout) -> Args:
    return ("route", "add", *_route(route))


def unreachable(network: Network) -> Args:
    return ("route", "add", "unreachable", str(network))


def unreachable_del(network: Network) -> Args:
    return ("route", "del", "unreachable", str(network))


def no_ipv6(dev: IfName) -> str:
    """Return the name of the setting that switches IPv6 off on an interface."""
    return f"net/ipv6/conf/{dev}/disable_ipv6"


def route_del(route: RouteLayout) -> Args:
    return ("route", "del", *_route(route))


def neigh_set(address: Address, mac: str, dev: IfName) -> Args:
    """Set a neighbour by `replace`, because `add` fails if the kernel has learned the neighbour already."""
    return ("neigh", "replace", str(address), "lladdr", mac, "dev", dev, "nud", "permanent")


def neigh_forget(address: Address, dev: IfName) -> Args:
    """Forget a neighbour. `del` of a missing one ends a batch, even with -force (ip/ipneigh.c: exit(2))."""
    return ("neigh", "flush", "to", str(address), "dev", dev, "nud", "permanent")
