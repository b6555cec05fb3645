"""The kernel resources of a node: its namespace, interfaces, addresses, routes and neighbours."""

from __future__ import annotations

from patchbay.layout.layout import (
    Address,
    DeviceLayout,
    IfaceLayout,
    NodeLayout,
    RouterKind,
    RouterLayout,
)
from patchbay.model.lab import MTU_V6
from patchbay.model.names import IfName
from patchbay.plan.parts import address_resource, neighbour, route_resource
from patchbay.plan.resources import GONE, Key, Phase, Resource, Resources
from patchbay.plan.stun import stun_server
from patchbay.plan.view import View
from patchbay.plan.wires import device_wire, downlink_wire
from patchbay.tools import ip
from patchbay.tools.commands import Ip, SetSysctl

__all__ = ["link_resources", "node_resources", "title"]

LO = IfName("lo")

# Before any link exists, since each new interface copies `default`.
# - The kernel copies the host's IPv4 settings into a new namespace (net.core.devconf_inherit_init_net),
#   so what a host with a VPN or containers may have changed is set back.
# - accept_dad: addresses of routers and of the exchange answer at once instead of 2 s later.
# - ratemask: no ICMP error is rate-limited. Linux limits most of them to one a second and peer, so that a
#   quick traceroute misses routers (icmp(7), icmp_ratelimit). The kernel never sends ICMPv6 errors of type
#   127.
_EVERY_NODE = (
    ("net/ipv4/icmp_ratemask", "0"),
    ("net/ipv6/icmp/ratemask", "127"),
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


def title(node: NodeLayout) -> str:
    """Return the node as messages name it: `router 'home'`."""
    if isinstance(node, DeviceLayout):
        return f"device '{node.name}'"
    return "the exchange" if node.kind is RouterKind.IX else f"{node.kind} '{node.name}'"


def node_resources(view: View, node: NodeLayout) -> Resources:
    """Return the resources of a node that do not depend on its links and its policy."""
    why = f"give {title(node)} its namespace"
    yield (
        ("netns", node.ns),
        Resource(
            (Ip(None, ip.netns_add(node.ns), why=why, owner=node.ns),),
            (Ip(None, ip.netns_del(node.ns), why=f"take {title(node)} away", owner=node.ns, tolerate=GONE),),
            Phase.NAMESPACE,
            fixed=True,
            identity=node.number,
        ),
    )
    yield from _settings(node)
    if isinstance(node, RouterLayout):
        yield from _lan(node)
    for iface in node.ifaces:
        yield from _veth(view, node, iface)
    yield from _configuration(node)
    if isinstance(node, DeviceLayout):
        yield from stun_server(node)


def link_resources(view: View, node: NodeLayout) -> Resources:
    """Return the resources that follow from conditions of links: wires, and what leads packets into them."""
    if isinstance(node, RouterLayout):
        yield from downlink_wire(view, node)
    for iface in node.ifaces:
        yield from device_wire(view, node, iface)
        yield _port(view, node, iface)
        yield from _neighbours(view, node, iface)


def _setting(node: NodeLayout, name: str, value: str, why: str, *, optional: bool = False) -> Resource:
    command = SetSysctl(node.ns, name, value, why=why, owner=node.ns, optional=optional)
    return Resource((command,), phase=Phase.SETTING, within=(("netns", node.ns),))


def _settings(node: NodeLayout) -> Resources:
    forwards = isinstance(node, RouterLayout)
    why = f"set how {title(node)} treats packets"
    for name, value in _FORWARDER if forwards else _DEVICE:
        yield ("sysctl", node.ns, name), _setting(node, name, value, why)
    for name in _BRIDGE_NF if forwards else ():
        setting = f"net/bridge/bridge-nf-call-{name}"
        yield ("sysctl", node.ns, setting), _setting(node, setting, "0", why, optional=True)


def _lan(router: RouterLayout) -> Resources:
    make = Ip(
        None, ip.bridge_add(router.ns, router.lan), why=f"give {title(router)} its LAN", owner=router.ns
    )
    yield (
        ("link", router.ns, router.lan.bridge),
        # The first of its namespace, or its index might be taken.
        Resource((make,), phase=Phase.BRIDGE, within=(("netns", router.ns),), fixed=True),
    )


def _veth(view: View, node: NodeLayout, iface: IfaceLayout) -> Resources:
    """Return the resources of an uplink, and those that can change while the uplink is there.

    The port is deleted by name with the node, because the node's namespace ends some time after `netns del`
    returned, and the name may be needed.
    """
    why = f"connect {title(node)} by {iface.name} to '{iface.router}'"
    leave = f"take {title(node)} away"
    key, master = ("link", node.ns, iface.name), view.master_of(node, iface)
    yield (
        key,
        Resource(
            (Ip(None, ip.veth_add(node.ns, iface, master.index), why=why, owner=node.ns),),
            (Ip(iface.router_ns, ip.link_del(iface.port), why=leave, owner=node.ns, tolerate=GONE),),
            Phase.LINK,
            within=(("netns", iface.router_ns),),
            fixed=True,
            identity=(node.number, iface.router_ns, iface.port, iface.port_mac, iface.mac),
        ),
    )
    for ns, name, mtu in ip.veth_mtus(node.ns, iface):
        size = f"set the MTU of {title(node)} on {iface.name}"
        yield (
            ("mtu", ns, name),
            Resource(
                (Ip(ns, ip.link_mtu(name, mtu), why=size, owner=node.ns),),
                (Ip(ns, ip.link_mtu(name, ip.USUAL_MTU), why=size, owner=node.ns, tolerate=GONE),),
                within=(key,),
                comes_with=key,
            ),
        )


def _port(view: View, node: NodeLayout, iface: IfaceLayout) -> tuple[Key, Resource]:
    """Return the resource of the port's bridge, which may change while the uplink is there."""
    why, key = f"lead packets of {title(node)} on {iface.name}", ("link", node.ns, iface.name)
    bridge = view.master_of(node, iface).name
    return ("master", iface.router_ns, iface.port), Resource(
        (Ip(iface.router_ns, ip.link_master(iface.port, bridge), why=why, owner=node.ns),),
        phase=Phase.LEAD,
        within=(key,),
        comes_with=key,
    )


def _configuration(node: NodeLayout) -> Resources:
    if isinstance(node, RouterLayout):
        # Below 1280 bytes an interface has no IPv6 settings: addrconf_notify in net/ipv6/addrconf.c.
        uplinks = (iface.name for iface in node.ifaces if iface.mtu is None or iface.mtu >= MTU_V6)
        for name in (node.lan.bridge, *uplinks):
            why, setting = f"let {title(node)} speak IPv6 on its own interfaces", ip.no_ipv6(name)
            yield (
                ("sysctl", node.ns, setting),
                Resource(
                    (SetSysctl(node.ns, setting, "0", why=why, owner=node.ns),),
                    within=(("link", node.ns, name),),
                ),
            )
    yield _up(node, LO, f"start {title(node)}", ("netns", node.ns))
    # An IPv6 address before `up` would get its route from a worker, some time later.
    if isinstance(node, RouterLayout):
        why, bridge = f"give {title(node)} its addresses on the LAN", node.lan.bridge
        yield _up(node, bridge, why)
        for address in node.lan.addresses:
            yield address_resource(node.ns, address, bridge, why, node.ns)
    for iface in node.ifaces:
        why = f"give {title(node)} its address on {iface.name}"
        yield _up(node, iface.name, why)
        for address in iface.addresses:
            yield address_resource(node.ns, address, iface.name, why, node.ns)
        for address, gateway in zip(iface.addresses, iface.gateways, strict=True):
            if gateway not in address.network:
                yield _on_link(node, gateway, iface.name, why)
    yield from _default_routes(node)
    if isinstance(node, RouterLayout):
        yield from _unused_space(node)
    for route in node.routes:
        why = f"lead packets for {title(node)} to it"
        yield route_resource(route, why, node.ns, ("netns", route.ns))


def _up(node: NodeLayout, name: IfName, why: str, within: Key | None = None) -> tuple[Key, Resource]:
    inside = within or ("link", node.ns, name)
    return ("up", node.ns, name), Resource(
        (Ip(node.ns, ip.link_up(name), why=why, owner=node.ns),), within=(inside,)
    )


def _on_link(node: NodeLayout, gateway: Address, dev: IfName, why: str) -> tuple[Key, Resource]:
    return ("route", node.ns, str(gateway), dev), Resource(
        (Ip(node.ns, ip.on_link(gateway, dev), why=why, owner=node.ns),),
        (Ip(node.ns, ip.on_link_del(gateway, dev), why=why, owner=node.ns, tolerate=GONE),),
        within=(("link", node.ns, dev),),
        fixed=True,
    )


def _unused_space(router: RouterLayout) -> Resources:
    """Make unused addresses below the router unreachable, or their packets would circle for ever."""
    lans = {address.network for address in router.lan.addresses}
    for network in router.networks:
        if network not in lans:
            why = f"end what {title(router)} has no use for"
            yield (
                ("route", router.ns, str(network), "unreachable"),
                Resource(
                    (Ip(router.ns, ip.unreachable(network), why=why, owner=router.ns),),
                    (Ip(router.ns, ip.unreachable_del(network), why=why, owner=router.ns, tolerate=GONE),),
                    within=(("netns", router.ns),),
                ),
            )


def _default_routes(node: NodeLayout) -> Resources:
    for version in (4, 6):
        iface = node.uplink if isinstance(node, RouterLayout) else node.default_iface(version)
        if iface and (gateway := iface.gateway(version)):
            why = f"give {title(node)} its way out"
            yield (
                ("default", node.ns, str(version)),
                Resource(
                    (Ip(node.ns, ip.default_route(gateway, iface.name), why=why, owner=node.ns),),
                    (
                        Ip(
                            node.ns,
                            ip.default_route_del(gateway, iface.name),
                            why=why,
                            owner=node.ns,
                            tolerate=GONE,
                        ),
                    ),
                    within=(("link", node.ns, iface.name),),
                    again=(
                        Ip(node.ns, ip.default_route_replace(gateway, iface.name), why=why, owner=node.ns),
                    ),
                ),
            )


def _neighbours(view: View, node: NodeLayout, iface: IfaceLayout) -> Resources:
    """Permanent entries do not count towards the kernel's 1024 for all namespaces together. And over a link
    with a condition ARP would cross the delay too, and might be lost.
    """
    if not (view.quiet or view.is_conditioned(node, iface)):
        return
    why, lan = f"spare ARP between {title(node)} and '{iface.router}'", iface.router_lan
    here, there = ("link", node.ns, iface.name), ("netns", iface.router_ns)
    for address, gateway in zip(iface.addresses, iface.gateways, strict=True):
        yield neighbour(node.ns, gateway, lan.mac, iface.name, why, node.ns, here)
        yield neighbour(iface.router_ns, address.ip, iface.mac, lan.bridge, why, node.ns, there)
