"""Gives out names, MACs and addresses to one node after another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Network, ip_interface, ip_network

from attrs import evolve

from patchbay.errors import AllocationError, Problem
from patchbay.layout import pools
from patchbay.layout.check import device_path
from patchbay.layout.layout import (
    LAN,
    WAN,
    DeviceLayout,
    IfaceLayout,
    Interface,
    LanLayout,
    Layout,
    Network,
    PolicyLayout,
    RouteLayout,
    RouterKind,
    RouterLayout,
    host_counter,
    of_version,
)
from patchbay.model.lab import DeviceSpec, IpSupport, NatV6, RouterSpec
from patchbay.model.names import IfName, NsName, slug, unique_name
from patchbay.model.nat import config_of
from patchbay.model.presets import ResolvedRouter, resolve

__all__ = ["Builder", "host_of"]

NS_NAME_BYTES = 40


class Builder:
    """A layout in the making: mutable copies of a frozen one's tables."""

    def __init__(self, layout: Layout, named: Iterable[Network]) -> None:
        """Begin with a layout. `named` are the networks that the additions name for themselves."""
        self._layout = layout
        self._public = pools.PUBLIC_PLANS[layout.addresses]
        self._named = tuple(named)
        self._forwarders = dict(layout.forwarders)
        self._devices = dict(layout.devices)
        self._counters = dict(layout.allocations.counters)
        self._ns_names = set(layout.allocations.ns_names)
        self._ifnames: dict[NsName, set[str]] = {}
        self._macs = set(layout.allocations.macs)
        self._policies = dict(layout.policies)
        # What shows only when addresses are given out.
        self.problems: list[Problem] = []

    def finish(self) -> Layout:
        allocations = evolve(
            self._layout.allocations.with_ifnames(self._ifnames),
            counters=self._counters,
            ns_names=frozenset(self._ns_names),
            macs=frozenset(self._macs),
        )
        return evolve(
            self._layout,
            forwarders=self._forwarders,
            devices=self._devices,
            policies=self._policies,
            allocations=allocations,
        )

    # -- nodes

    def add_region(self, name: str) -> None:
        ns = self._ns(f"region-{slug(name, NS_NAME_BYTES)}")
        ix = self._forwarders["ix:ix"]
        networks = [
            self._next_free(pool, list(self._neighbours(ix.domains[version], ix, version)))
            for version, pool in ((4, self._public.region), (6, self._public.region_v6))
        ]
        uplink = _alone(self._iface(ns, ns, WAN, ix, IpSupport.DUAL_STACK, None))
        self._add_forwarder(
            RouterLayout(
                name=name,
                kind=RouterKind.REGION,
                ns=ns,
                lan=self._lan(ns, networks),
                uplink=uplink,
                parent=ix.key,
                routes=self._routes(ix, uplink, networks),
                domains=ix.domains,
                networks=tuple(networks),
                number=self._count("nodes", 1),
            )
        )

    def add_router(self, spec: RouterSpec, path: str) -> None:
        traits = resolve(spec)
        parent = self._parent_of(spec)
        if parent is None:
            return  # the router above has a problem of its own, reported there
        if not set(traits.ip_support.versions) & set(parent.ip_support.versions):
            what = f"found '{traits.ip_support}', but '{parent.name}' above it is '{parent.ip_support}'"
            self.problems.append(Problem(f"{path}.ip_support", f"{what}: no IP version in common"))
            return
        ns = self._ns(slug(spec.name, NS_NAME_BYTES))
        domains = {v: ns if _translates(traits, v) else parent.domains[v] for v in (4, 6)}
        networks = self._downstream(spec, traits, parent, domains, path)
        uplink = _alone(self._iface(spec.name, ns, WAN, parent, traits.ip_support, spec.mtu))
        self._add_forwarder(
            RouterLayout(
                name=spec.name,
                kind=RouterKind.ROUTER,
                ns=ns,
                lan=self._lan(ns, networks),
                uplink=uplink,
                parent=parent.key,
                region=parent.name if parent.kind is RouterKind.REGION else parent.region,
                ip_support=traits.ip_support,
                mtu=spec.mtu,
                routes=self._routes(
                    parent, uplink, [n for n in networks if not _translates(traits, n.version)]
                ),
                domains=domains,
                networks=tuple(networks),
                number=self._count("nodes", 1),
            )
        )
        self._policies[ns] = PolicyLayout(
            traits.nat, traits.nat_v6, traits.firewall, spec.block_icmp_frag_needed, spec.port_mapping
        )

    def add_device(self, spec: DeviceSpec) -> None:
        ns = self._ns(slug(spec.name, NS_NAME_BYTES))
        found = {name: self._forwarders.get(f"router:{iface.router}") for name, iface in spec.ifaces.items()}
        routers = {name: router for name, router in found.items() if router}
        if len(routers) < len(found):
            return  # a router of it has a problem of its own, reported there
        self._check_apart(device_path(spec), list(routers.items()))
        ifaces = tuple(
            self._iface(spec.name, ns, IfName(name), router, router.ip_support, spec.mtu)
            for name, router in routers.items()
        )
        self._devices[spec.name] = DeviceLayout(
            name=spec.name,
            ns=ns,
            ifaces=ifaces,
            default_via=IfName(spec.default_via or next(iter(spec.ifaces))),
            mtu=spec.mtu,
            # A folder before the folders in it, because each hides what was there.
            private=tuple(sorted(set(spec.private))),
            stun=spec.stun,
            routes=tuple(route for iface in ifaces for route in _mtu_routes(iface)),
            number=self._count("nodes", 1),
        )

    def _check_apart(self, path: str, routers: list[tuple[str, RouterLayout]]) -> None:
        for number, (iface, router) in enumerate(routers):
            for other_iface, other in routers[:number]:
                clash = _clash(router.networks, other.networks) if router is not other else None
                if clash:
                    what = (
                        f"'{router.name}' and '{other.name}' (on {other_iface}) both have {clash} below them"
                    )
                    what = f"{what}: a device cannot tell them apart"
                    self.problems.append(Problem(f"{path}.{iface}.gateway", what))

    # -- parts of nodes

    def _add_forwarder(self, router: RouterLayout) -> None:
        self._forwarders[router.key] = router

    def _parent_of(self, spec: RouterSpec) -> RouterLayout | None:
        if spec.upstream is not None:
            return self._forwarders.get(f"router:{spec.upstream}")
        return self._forwarders.get(f"region:{spec.region}" if spec.region is not None else "ix:ix")

    def _ns(self, wanted: str) -> NsName:
        name = unique_name(wanted, self._ns_names, NS_NAME_BYTES + 8)
        self._ns_names.add(name)
        return NsName(name)

    def _lan(self, ns: NsName, networks: Iterable[Network]) -> LanLayout:
        lans = (_lan_of(network) for network in networks)
        return LanLayout(LAN, self._mac(ns, LAN), tuple(_gateway(lan) for lan in lans))

    def _iface(
        self,
        node: str,
        ns: NsName,
        name: IfName,
        router: RouterLayout,
        support: IpSupport,
        mtu: int | None,
    ) -> IfaceLayout:
        number = self._count(host_counter(router.ns), start=2)
        lan = [address for address in router.lan.addresses if address.version in support.versions]
        if router.ns not in self._ifnames:
            self._ifnames[router.ns] = {*self._layout.allocations.taken_in(router.ns)}
        taken = self._ifnames[router.ns]
        port_name = unique_name(_port_wish(node), taken, 15)
        taken.add(port_name)
        return IfaceLayout(
            name=name,
            mac=self._mac(ns, name),
            addresses=tuple(host_of(router, address, number) for address in lan),
            gateways=tuple(address.ip for address in lan),
            mtu=mtu,
            router=router.name,
            router_ns=router.ns,
            router_lan=router.lan,
            port=IfName(port_name),
            port_mac=self._mac(router.ns, port_name),
        )

    def _routes(
        self, parent: RouterLayout, uplink: IfaceLayout, networks: Iterable[Network]
    ) -> tuple[RouteLayout, ...]:
        """Return routes for the routers above, up to the first that translates, or to the exchange."""
        routes = []
        for network in networks:
            above, hop = parent, uplink
            while via := of_version(hop.addresses, network.version):
                routes.append(RouteLayout(above.ns, network, LAN, via.ip, hop.mtu))
                next_hop = above.uplink
                if next_hop is None or above.bounds(network.version):
                    break
                above, hop = self._forwarders[above.parent or ""], next_hop
        return (*routes, *_mtu_routes(uplink))

    # -- networks below a router

    def _downstream(
        self,
        spec: RouterSpec,
        traits: ResolvedRouter,
        parent: RouterLayout,
        domains: Mapping[int, NsName],
        path: str,
    ) -> list[Network]:
        given: dict[int, Network | None] = {4: spec.downstream_cidr, 6: spec.downstream_cidr_v6}
        automatic = {v: self._public.below(v, traits.scope_of(v)) for v in (4, 6)}
        networks = []
        for version in traits.ip_support.versions:
            neighbours = list(self._neighbours(domains[version], parent, version))
            network = given[version]
            if network is None:
                network = self._next_free(automatic[version], neighbours)
            for other, owner in neighbours:
                if network.overlaps(other):
                    key = "downstream_cidr" if version == 4 else "downstream_cidr_v6"
                    what = f"{network} overlaps {other} of {owner} in the same routing domain"
                    self.problems.append(Problem(f"{path}.{key}", f"{what}; accepted: a network of its own"))
                    break
            networks.append(network)
        return networks

    def _neighbours(
        self, domain: NsName, parent: RouterLayout, version: int
    ) -> Iterable[tuple[Network, str]]:
        """Return the networks that packets inside `domain` can be for, and those of the links to `parent`
        and out of the domain.
        """
        gate = next((router for router in self._forwarders.values() if router.ns == domain), None)
        beside = {parent.key, gate.parent if gate else None}
        for router in self._forwarders.values():
            if router.key in beside or router.domains[version] == domain:
                for network in router.networks:
                    if network.version == version:
                        yield network, _title(router)

    def _next_free(self, pool: pools.Pool, neighbours: list[tuple[Network, str]]) -> Network:
        """Return the pool's next network that no router has named."""
        # Private ones behind different NATs may be the same.
        named = () if pool in (pools.PRIVATE, pools.CARRIER) else self._named
        while True:
            network = self._next(pool)
            if not any(network.overlaps(other) for other in (*named, *(n for n, _ in neighbours))):
                return network

    def _next(self, pool: pools.Pool) -> Network:
        network = pool.network(self._count(pool.name))
        if network is None:
            way_out = f"; give some routers a {pool.instead} of their own" if pool.instead else ""
            raise AllocationError(f"the {pool.name} pool is used up: it has {pool.size} networks{way_out}")
        return network

    # -- counters

    def _count(self, what: str, start: int = 0) -> int:
        number = self._counters.get(what, start)
        self._counters[what] = number + 1
        return number

    def _mac(self, node: str, iface: str) -> str:
        attempt = 0
        while (mac := pools.mac_of(node, iface, attempt)) in self._macs:
            attempt += 1
        self._macs.add(mac)
        return mac


def host_of(router: RouterLayout, gateway: Interface, number: int) -> Interface:
    """Return a host on the LAN of a router with address `gateway`, by number. Raises `AllocationError`."""
    address = pools.host_in(gateway.network, number)
    if address is None:
        room = gateway.network.num_addresses - 3
        way_out = (
            f"; give it a wider downstream_cidr than {gateway.network}"
            if router.kind is RouterKind.ROUTER
            else "; put routers below other routers (upstream=)"
        )
        raise AllocationError(f"no address left below {_title(router)}: it has room for {room}{way_out}")
    return address


def _title(router: RouterLayout) -> str:
    return "the exchange" if router.kind is RouterKind.IX else f"{router.kind} '{router.name}'"


def _port_wish(node: str) -> str:
    """Return the node's name, unless it looks like the interfaces of a wire."""
    name = slug(node, 15)
    return slug(f"to-{name}", 15) if re.match(r"wire\d", name) else name


def _alone(uplink: IfaceLayout) -> IfaceLayout:
    """Return the uplink as a line of its own to the router above, without neighbours, as providers' are.

    So what routers send each other passes the router above, which knows the MTU of each line.
    """
    addresses = (ip_interface(f"{address.ip}/{address.max_prefixlen}") for address in uplink.addresses)
    return evolve(uplink, addresses=tuple(addresses))


def _translates(router: ResolvedRouter, version: int) -> bool:
    """Return whether the addresses below the router are to be unknown above it."""
    return config_of(router.nat) is not None if version == 4 else router.nat_v6 is not NatV6.NONE


def _lan_of(network: Network) -> Network:
    """Return the part of a router's network that its own LAN has: the first /64 of an IPv6 prefix."""
    if network.version == 4 or network.prefixlen == 64:
        return network
    return IPv6Network((int(network.network_address), 64))


def _gateway(lan: Network) -> Interface:
    gateway = pools.host_in(lan, 1)
    assert gateway is not None, "check() refuses networks this small"
    return gateway


def _clash(left: Iterable[Network], right: Iterable[Network]) -> Network | None:
    """Return the first network of `left` that overlaps one of `right`."""
    for one in left:
        for other in right:
            if one.version == other.version and one.overlaps(other):
                return one
    return None


def _mtu_routes(iface: IfaceLayout) -> tuple[RouteLayout, ...]:
    """Host routes with the link's MTU, so that the router above answers "fragmentation needed".

    Its LAN is one bridge with one MTU, and a bridge drops what does not fit a port without a word
    (is_skb_forwardable in net/core/dev.c).
    """
    if iface.mtu is None:
        return ()
    return tuple(
        RouteLayout(iface.router_ns, ip_network(address.ip), iface.router_lan.bridge, None, iface.mtu)
        for address in iface.addresses
    )
