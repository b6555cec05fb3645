"""The commands that make one node, and those that take it away again."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from patchbay.layout.layout import (
    Address,
    DeviceLayout,
    NodeLayout,
    PolicyLayout,
    RouterKind,
    RouterLayout,
)
from patchbay.model.names import IfName, NsName
from patchbay.plan.policy import first_rules
from patchbay.tools import ip
from patchbay.tools.commands import Command, Ip, SetSysctl

__all__ = ["NodeCommands", "build", "forget_neighbours", "neighbours", "remove", "title"]

LO = IfName("lo")

# What undoing may find done already.
_GONE = ("Cannot find device", "No such process", "No such file or directory", "FIB table does not exist")

# Before any link exists, since each new interface copies `default`.
# - The kernel copies the host's IPv4 settings into a new namespace (net.core.devconf_inherit_init_net),
#   so what a host with a VPN or containers may have changed is set back.
# - accept_dad: addresses of routers and of the exchange answer at once instead of 2 s later.
_EVERY_NODE = (
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
)
_DEVICE = (("net/ipv4/ip_forward", "0"), *_EVERY_NODE)
# A router that sends a packet back out where it came in would tell the sender of a shorter way.
_FORWARDER = (
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    *_EVERY_NODE,
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    # Ports of a bridge are no hosts: no address, no MLD reports. Its own interfaces get it back.
    ("net/ipv6/conf/default/disable_ipv6", "1"),
)
# With br_netfilter loaded these are 1 in a new namespace, and a drop in `forward` then cuts two
# hosts on one bridge from each other.
_BRIDGE_NF = ("arptables", "ip6tables", "iptables")


@frozen
class NodeCommands:
    """`namespaces`, `settings` and `links` of many nodes are made in that order; then comes `configure`."""

    namespace: Command
    settings: tuple[Command, ...]
    links: tuple[Command, ...]
    configure: tuple[Command, ...]


def title(node: NodeLayout) -> str:
    """The node as messages name it: `router 'home'`."""
    if isinstance(node, DeviceLayout):
        return f"device '{node.name}'"
    return "the exchange" if node.kind is RouterKind.IX else f"{node.kind} '{node.name}'"


def build(node: NodeLayout, policy: PolicyLayout | None, *, quiet: bool) -> NodeCommands:
    """All commands for `node`; a router has a policy.

    `quiet`: with permanent neighbour entries, so that nobody asks by ARP.
    """
    rules = first_rules(node, policy) if isinstance(node, RouterLayout) and policy else ()
    return NodeCommands(
        namespace=Ip(None, ip.netns_add(node.ns), f"give {title(node)} its namespace", node.ns),
        settings=tuple(_settings(node)),
        links=tuple(_links(node)),
        configure=(*_configure(node), *rules, *(neighbours(node) if quiet else ())),
    )


def _settings(node: NodeLayout) -> Iterator[Command]:
    forwards = isinstance(node, RouterLayout)
    why = f"set how {title(node)} treats packets"
    for name, value in _FORWARDER if forwards else _DEVICE:
        yield SetSysctl(node.ns, name, value, why, node.ns)
    for name in _BRIDGE_NF if forwards else ():
        yield SetSysctl(node.ns, f"net/bridge/bridge-nf-call-{name}", "0", why, node.ns, optional=True)


def _links(node: NodeLayout) -> Iterator[Command]:
    if isinstance(node, RouterLayout):
        yield Ip(None, ip.bridge_add(node.ns, node.lan), f"give {title(node)} its LAN", node.ns)
    for iface in node.ifaces:
        why = f"connect {title(node)} by {iface.name} to '{iface.router}'"
        yield Ip(None, ip.veth_add(node.ns, iface), why, node.ns)


def _configure(node: NodeLayout) -> Iterator[Command]:
    if isinstance(node, RouterLayout):
        for name in (node.lan.bridge, *(iface.name for iface in node.ifaces)):
            why = f"let {title(node)} speak IPv6 on its own interfaces"
            yield SetSysctl(node.ns, f"net/ipv6/conf/{name}/disable_ipv6", "0", why, node.ns)
    yield Ip(node.ns, ip.link_up(LO), f"start {title(node)}", node.ns)
    # An IPv6 address before `up` would get its route from a worker, some time later.
    if isinstance(node, RouterLayout):
        why = f"give {title(node)} its addresses on the LAN"
        yield Ip(node.ns, ip.link_up(node.lan.bridge), why, node.ns)
        for address in node.lan.addresses:
            yield Ip(node.ns, ip.addr_add(address, node.lan.bridge), why, node.ns)
    for iface in node.ifaces:
        why = f"give {title(node)} its address on {iface.name}"
        yield Ip(node.ns, ip.link_up(iface.name), why, node.ns)
        for address in iface.addresses:
            yield Ip(node.ns, ip.addr_add(address, iface.name), why, node.ns)
        for address, gateway in zip(iface.addresses, iface.gateways, strict=True):
            if gateway not in address.network:
                yield Ip(node.ns, ip.on_link(gateway, iface.name), why, node.ns)
    yield from _default_routes(node)
    if isinstance(node, RouterLayout):
        yield from _unused_space(node)
    for route in node.routes:
        why = f"lead packets for {title(node)} to it"
        yield Ip(route.ns, ip.route_add(route), why, node.ns)


def _unused_space(router: RouterLayout) -> Iterator[Command]:
    """What is routed to the router and not in use there must not go back up, and round and round."""
    lans = {address.network for address in router.lan.addresses}
    for network in router.networks:
        if network not in lans:
            why = f"end what {title(router)} has no use for"
            yield Ip(router.ns, ip.unreachable(network), why, router.ns)


def _default_routes(node: NodeLayout) -> Iterator[Command]:
    for version in (4, 6):
        iface = node.uplink if isinstance(node, RouterLayout) else node.default_iface(version)
        if iface and (gateway := iface.gateway(version)):
            why = f"give {title(node)} its way out"
            yield Ip(node.ns, ip.default_route(gateway, iface.name), why, node.ns)


def neighbours(node: NodeLayout) -> Iterator[Command]:
    """Permanent entries do not count towards the kernel's 1024 for all namespaces together."""
    why = f"spare the kernel's neighbour table for {title(node)}"
    for ns, address, mac, dev in _neighbour_entries(node):
        yield Ip(ns, ip.neigh_set(address, mac, dev), why, node.ns)


def forget_neighbours(node: NodeLayout) -> Iterator[Command]:
    """Back to entries that the kernel learns by itself."""
    why = f"let {title(node)} learn its neighbours"
    for ns, address, _, dev in _neighbour_entries(node):
        yield Ip(ns, ip.neigh_forget(address, dev), why, node.ns, _GONE)


def _neighbour_entries(node: NodeLayout) -> Iterator[tuple[NsName, Address, str, IfName]]:
    for iface in node.ifaces:
        for address, gateway in zip(iface.addresses, iface.gateways, strict=True):
            yield node.ns, gateway, iface.router_lan.mac, iface.name
            yield iface.router_ns, address.ip, iface.mac, iface.router_lan.bridge


def remove(node: NodeLayout, *, quiet: bool) -> tuple[tuple[Command, ...], Command]:
    """What takes the node out of the namespaces that stay, and what ends its own.

    `quiet`: it was built with permanent neighbour entries. Ports and routes are deleted by name, though
    they would go with the namespace: that happens some time after `netns del` returned, and what is
    built next may want the same names at once.
    """
    why = f"take {title(node)} away"
    ports = (Ip(i.router_ns, ip.link_del(i.port), why, node.ns, _GONE) for i in node.ifaces)
    routes = (Ip(route.ns, ip.route_del(route), why, node.ns, _GONE) for route in node.routes)
    entries = (
        Ip(ns, ip.neigh_forget(address, dev), why, node.ns, _GONE)
        for ns, address, _, dev in (_neighbour_entries(node) if quiet else ())
    )
    return (*entries, *routes, *ports), Ip(None, ip.netns_del(node.ns), why, node.ns, _GONE)
