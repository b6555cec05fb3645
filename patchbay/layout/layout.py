"""The decided lab: every namespace, interface, MAC, address and route, with nothing left open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from attrs import evolve, field, frozen

from patchbay.model.firewall import Firewall, FirewallConfig
from patchbay.model.lab import Addresses, IpSupport, NatV6
from patchbay.model.link import Condition, Emulator
from patchbay.model.names import KERNEL_IFNAMES, IfName, NsName, dns_name
from patchbay.model.nat import Nat, NatConfig

__all__ = [
    "LAN",
    "WAN",
    "Address",
    "Allocations",
    "DeviceLayout",
    "IfaceLayout",
    "Interface",
    "LanLayout",
    "Layout",
    "Names",
    "Network",
    "NodeLayout",
    "PolicyLayout",
    "RouteLayout",
    "RouterKind",
    "RouterLayout",
    "VethEnd",
    "WireKey",
    "WireLayout",
    "host_counter",
    "of_version",
    "wire_counter",
]

# The interfaces that every router has.
LAN, WAN = IfName("lan"), IfName("wan")

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network


def of_version(values: Iterable[Interface], version: int) -> Interface | None:
    """Return the first of `values` in that IP version."""
    return next((value for value in values if value.version == version), None)


class RouterKind(StrEnum):
    """The kind of a forwarder: the exchange, a region, or a router."""

    IX = "ix"
    REGION = "region"
    ROUTER = "router"


@frozen
class RouteLayout:
    """A route that a node needs in the namespace of a router above it, so that it can be reached."""

    ns: NsName
    prefix: Network
    dev: IfName
    via: Address | None = None
    mtu: int | None = None


@frozen
class IfaceLayout:
    """An uplink: a veth end in the node, its other end a port in the bridge of the router above.

    `gateways` are the router's addresses on the link. `mtu` is None for the default, 1500.
    """

    name: IfName
    mac: str
    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...]
    mtu: int | None
    router: str
    router_ns: NsName
    router_lan: LanLayout
    port: IfName
    port_mac: str

    def gateway(self, version: int) -> Address | None:
        return next((address for address in self.gateways if address.version == version), None)


@frozen
class LanLayout:
    """The bridge below a router, and the router's addresses on it."""

    bridge: IfName
    mac: str
    addresses: tuple[Interface, ...]


@frozen
class RouterLayout:
    """Something that forwards: a router, a region, or the exchange, which alone has no uplink."""

    name: str
    kind: RouterKind
    ns: NsName
    lan: LanLayout
    uplink: IfaceLayout | None = None
    parent: str | None = None
    region: str | None = None
    ip_support: IpSupport = IpSupport.DUAL_STACK
    mtu: int | None = None
    routes: tuple[RouteLayout, ...] = ()
    # Which addresses can be compared with each other: those in one domain, named by the namespace
    # of the NAT that bounds it, or of the exchange.
    domains: Mapping[int, NsName] = field(factory=dict)
    # What is below it, whole: of an IPv6 prefix the LAN has only the first /64.
    networks: tuple[Network, ...] = ()
    # Tells the node from an earlier one of the same name.
    number: int = 0

    @property
    def ifaces(self) -> tuple[IfaceLayout, ...]:
        return (self.uplink,) if self.uplink else ()

    def bounds(self, version: int) -> bool:
        """Return True if the addresses below were given out as unknown above: it began with a NAT."""
        return self.domains[version] == self.ns and self.kind is not RouterKind.IX

    @property
    def key(self) -> str:
        """Return its key in `Layout.forwarders`, because a region may have the name of a router."""
        return f"{self.kind}:{self.name}"


@frozen
class PolicyLayout:
    """The policy of a router for packets between its uplink and the network below: NAT, firewall, services.

    `generation` counts how often it has forgotten all connections. Of a port-block NAT, `blocks` is the
    number of the block of each host below, and `pool` are its outside addresses beside the uplink's own.
    `port_mapping`: whether it serves UPnP IGD, NAT-PMP and PCP while it has a NAT.
    """

    nat: Nat | NatConfig = Nat.NONE
    nat_v6: NatV6 = NatV6.NONE
    firewall: Firewall | FirewallConfig = Firewall.NONE
    block_icmp_frag_needed: bool = False
    port_mapping: bool = False
    generation: int = 0
    blocks: Mapping[IPv4Address, int] = field(factory=dict)
    pool: tuple[IPv4Address, ...] = ()


NO_POLICY = PolicyLayout()


@frozen
class DeviceLayout:
    """A host at the edge.

    `default_via` names the interface of its default routes; `private` are folders of its own. With `stun` the
    device has a STUN server.
    """

    name: str
    ns: NsName
    ifaces: tuple[IfaceLayout, ...]
    default_via: IfName
    mtu: int | None = None
    private: tuple[str, ...] = ()
    stun: bool = False
    routes: tuple[RouteLayout, ...] = ()
    # Tells the node from an earlier one of the same name.
    number: int = 0

    def default_iface(self, version: int) -> IfaceLayout | None:
        """Return the interface of a version's default route: `default_via`, or the first with the version."""
        chosen_first = sorted(self.ifaces, key=lambda iface: iface.name != self.default_via)
        return next((iface for iface in chosen_first if iface.gateway(version)), None)


NodeLayout = RouterLayout | DeviceLayout


@frozen
class Names:
    """The addresses of names, in the whole lab (scope "") or in one node (scope: its name).

    Keys of `hosts` within a scope have the form of `dns_name`.
    """

    hosts: Mapping[str, Mapping[str, tuple[Address, ...]]] = field(factory=dict)
    nameservers: Mapping[str, Address] = field(factory=dict)

    def given(self, scope: str, name: str) -> tuple[Address, ...]:
        """Return the addresses that `name` was given in exactly this scope."""
        with suppress(UnicodeError):
            return self.hosts.get(scope, {}).get(dns_name(name), ())
        return ()

    def with_host(self, scope: str, name: str, addresses: tuple[Address, ...]) -> Names:
        """Return the names where these are all addresses of `name`; none removes the name."""
        entries = {**self.hosts.get(scope, {}), dns_name(name): addresses}
        kept = {name: addresses for name, addresses in entries.items() if addresses}
        hosts = {**self.hosts, scope: kept}
        return evolve(self, hosts={scope: entries for scope, entries in hosts.items() if entries})

    def with_nameserver(self, scope: str, address: Address) -> Names:
        return evolve(self, nameservers={**self.nameservers, scope: address})

    def scopes(self) -> set[str]:
        """Return the nodes that have names of their own."""
        return {*self.hosts, *self.nameservers} - {""}

    def without(self, node: str) -> Names:
        """Return the names without those that one node has of its own."""
        return Names(
            {scope: hosts for scope, hosts in self.hosts.items() if scope != node},
            {scope: server for scope, server in self.nameservers.items() if scope != node},
        )

    def resolve(self, scope: str, name: str) -> tuple[Address, ...]:
        """Return the addresses of `name` in a node: its own, or else those in the whole lab."""
        return self.given(scope, name) or self.given("", name)


@frozen
class VethEnd:
    """One end of a wire, and its peer: what hangs there, in whatever namespace."""

    name: IfName
    mac: str
    peer: IfName
    peer_mac: str
    peer_ns: NsName


# ("link", device, interface), ("downlink", router), or ("regions", first, second).
WireKey = tuple[str, ...]


@frozen
class WireLayout:
    """The place where a link's condition acts: a bridge in `ns` between two veth ends, which packets cross.

    What comes in at `far` leaves by `near`, and goes up; the other way is down. A device's link is cut at
    its router: the port is the far end, and the near end's peer takes its place in the LAN. A downlink
    is between `lan` and a bridge `below` with all the ports. Between regions, `far` leads to the first.
    A wire that is `broken` carries nothing, and its peers see no carrier; one is `lost` with its relay.
    """

    key: WireKey
    title: str
    ns: NsName
    owner: str
    bridge: IfName
    bridge_mac: str
    index: int
    far: VethEnd
    near: VethEnd
    condition: Condition
    mtu: int | None = None
    broken: bool = False
    lost: bool = False
    below: IfName | None = None
    routes: tuple[RouteLayout, ...] = ()

    @property
    def makes_far(self) -> bool:
        """Return True if the far end is made for the wire, and is not a device's port."""
        return self.key[0] != "link"

    @property
    def names(self) -> tuple[tuple[NsName, IfName], ...]:
        """Return the interfaces that are there for the wire alone."""
        ends = (self.near, self.far) if self.makes_far else (self.near,)
        inside = (self.bridge, *(end.name for end in ends), *((self.below,) if self.below else ()))
        return (*((self.ns, name) for name in inside), *((end.peer_ns, end.peer) for end in ends))


def host_counter(ns: NsName) -> str:
    """Return the key of the counter of hosts below a forwarder."""
    return f"hosts of {ns}"


def wire_counter(ns: NsName) -> str:
    """Return the key of the counter of wires in a namespace."""
    return f"wires in {ns}"


@frozen
class Allocations:
    """Everything that was given out, so that nothing is given out twice.

    `counters` hold the next number of each pool, and of the hosts of each namespace. `ifnames` are the
    names of interfaces that are taken in each namespace.
    """

    counters: Mapping[str, int] = field(factory=dict)
    ns_names: frozenset[str] = frozenset()
    ifnames: Mapping[NsName, frozenset[str]] = field(factory=dict)
    macs: frozenset[str] = frozenset()

    def taken_in(self, ns: NsName) -> frozenset[str]:
        """Return the names that no new interface in the namespace can have."""
        return self.ifnames.get(ns, _NEVER_FREE)

    def with_ifnames(self, changed: Mapping[NsName, Iterable[str]]) -> Allocations:
        """Return the allocations where these are the names that are taken in those namespaces."""
        ifnames = {ns: frozenset(names) for ns, names in changed.items()}
        return evolve(self, ifnames={**self.ifnames, **ifnames}) if changed else self


_NEVER_FREE = frozenset({LAN, WAN, *KERNEL_IFNAMES})


@frozen
class Layout:
    """A whole lab. A layout never changes: a change makes another layout of it.

    Nodes are in the order in which they can be built: a router comes before the nodes below it.
    """

    forwarders: Mapping[str, RouterLayout]
    devices: Mapping[str, DeviceLayout]
    # Links that are not perfect; AUTO is not decided yet.
    wires: Mapping[WireKey, WireLayout] = field(factory=dict)
    emulator: Emulator = Emulator.AUTO
    addresses: Addresses = Addresses.GLOBAL
    # Routers have policies; the exchange and regions only forward.
    policies: Mapping[NsName, PolicyLayout] = field(factory=dict)
    names: Names = Names()
    allocations: Allocations = Allocations()

    @property
    def ix(self) -> RouterLayout:
        return self.forwarders["ix:ix"]

    def router(self, name: str) -> RouterLayout | None:
        return self.forwarders.get(f"router:{name}")

    def region(self, name: str) -> RouterLayout | None:
        return self.forwarders.get(f"region:{name}")

    def node(self, name: str) -> NodeLayout | None:
        """Return the exchange, router or device of that name."""
        return self.devices.get(name) or self.router(name) or (self.ix if name == "ix" else None)

    def policy(self, router: RouterLayout) -> PolicyLayout:
        """Return the router's present policy: what it does to packets."""
        return self.policies.get(router.ns, NO_POLICY)

    def nodes(self) -> Iterator[NodeLayout]:
        yield from self.forwarders.values()
        yield from self.devices.values()
