"""Specifications of labs: frozen values without addresses, not yet checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from attrs import evolve, field, frozen

from patchbay.model.firewall import Firewall, FirewallConfig
from patchbay.model.link import PERFECT, Impairment, LinkCondition, merged
from patchbay.model.nat import Nat, NatConfig

__all__ = [
    "MTU_MOST",
    "MTU_V4",
    "MTU_V6",
    "Addresses",
    "DeviceSpec",
    "IfaceSpec",
    "IpSupport",
    "Ipv6",
    "LabSpec",
    "NatV6",
    "RegionLinkSpec",
    "RegionSpec",
    "RouterPreset",
    "RouterSpec",
    "links_by_latency",
]

# Bytes. RFC 791 and RFC 8200 section 5; the upper end is veth's (drivers/net/veth.c: ETH_MAX_MTU).
MTU_V4 = 68
MTU_V6 = 1280
MTU_MOST = 65535


class Addresses(StrEnum):
    """The ranges that a lab's public addresses are from.

    "global": ranges that programs take for public. "documentation": those of RFC 5737, 3849, 2544 and 5180.
    """

    GLOBAL = "global"
    DOCUMENTATION = "documentation"


class NatV6(StrEnum):
    """The translation of IPv6 addresses in packets that leave by a router's uplink."""

    NONE = "none"


class IpSupport(StrEnum):
    """The address families a router has."""

    V4_ONLY = "v4-only"
    V6_ONLY = "v6-only"
    DUAL_STACK = "dual-stack"

    @property
    def versions(self) -> tuple[int, ...]:
        return {"v4-only": (4,), "v6-only": (6,), "dual-stack": (4, 6)}[self.value]


class RouterPreset(StrEnum):
    """A kind of router, named after where it is found."""

    HOME = "home"
    DATACENTER = "datacenter"
    PUBLIC = "public"
    ISP_V4 = "isp-v4"
    PUBLIC_V4 = "public-v4"
    MOBILE = "mobile"
    ISP_CGNAT = "isp-cgnat"
    CORPORATE = "corporate"
    HOTEL = "hotel"
    CLOUD = "cloud"


class Ipv6(StrEnum):
    """The way nodes get IPv6: `deterministic` is static addresses and routes with DAD off."""

    DETERMINISTIC = "deterministic"


@frozen
class RegionSpec:
    """A part of the world: routers named into it are routed through it."""

    name: str


@frozen
class RegionLinkSpec:
    """The way between two regions, instead of the exchange; the condition's `up` is from `a` to `b`."""

    a: str
    b: str
    condition: LinkCondition
    # Its place in the lab file.
    path: str = field(default="region-link", eq=False)

    def between(self, a: str) -> LinkCondition:
        """Return the condition with `up` away from region `a`, one of the two."""
        if a == self.a:
            return self.condition
        return evolve(self.condition, up=self.condition.down, down=self.condition.up)

    def applied_to(self, base: RegionLinkSpec) -> RegionLinkSpec:
        """Return `base`, a link of the same two regions, with the values of this one."""
        both = merged(merged(PERFECT, base.between(self.a)), self.condition)
        return evolve(self, condition=LinkCondition(up=both.up, down=both.down))


def links_by_latency(latencies: Mapping[str, Mapping[str, float]]) -> dict[frozenset[str], RegionLinkSpec]:
    """Return the links of regions by pair, from the latencies that each region names, one way, in ms.

    Where only one of two says something, it is so in both directions.
    """
    links: dict[frozenset[str], RegionLinkSpec] = {}
    for a, others in latencies.items():
        for b, ms in others.items():
            back = latencies.get(b, {}).get(a, ms)
            condition = (
                LinkCondition(latency_ms=ms)
                if back == ms
                else LinkCondition(up=Impairment(ms), down=Impairment(back))
            )
            links.setdefault(frozenset((a, b)), RegionLinkSpec(a, b, condition, f"region.{a}.latencies"))
    return links


@frozen
class RouterSpec:
    """A router; None means: what the preset says.

    `upstream` names the router above it, None the exchange. `mtu` is that of its uplink, in bytes
    (default 1500). `downlink` is the condition between it and all that is below it. With
    `block_icmp_frag_needed` no message that a packet was too large passes it, or comes from it. With
    `port_mapping` hosts below it ask it for ports of its NAT.
    """

    name: str
    preset: RouterPreset | None = None
    upstream: str | None = None
    region: str | None = None
    nat: Nat | NatConfig | None = None
    nat_v6: NatV6 | None = None
    firewall: Firewall | FirewallConfig | None = None
    ip_support: IpSupport | None = None
    mtu: int | None = None
    downstream_cidr: IPv4Network | None = None
    downstream_cidr_v6: IPv6Network | None = None
    downlink: LinkCondition | None = None
    block_icmp_frag_needed: bool = False
    port_mapping: bool = False


@frozen
class IfaceSpec:
    """A device's interface, the router it is attached to, and the condition of the link to it."""

    router: str
    link: LinkCondition | None = None


@frozen
class DeviceSpec:
    """A device: one or more interfaces, each on a router.

    `default_via` names the interface of the default routes (default: the first); `mtu`, in bytes,
    is set on every interface (default 1500). `private` are folders that are empty and the device's own.
    With `stun` the device serves STUN at port 3478.
    `counted_from` is the name that the lab file has with a `count`, for a device made of it.
    """

    name: str
    ifaces: Mapping[str, IfaceSpec] = field(factory=dict)
    default_via: str | None = None
    mtu: int | None = None
    private: tuple[str, ...] = ()
    stun: bool = False
    counted_from: str | None = field(default=None, eq=False)


@frozen
class LabSpec:
    """A whole topology, or an addition to the topology of a lab.

    `addresses` chooses the ranges of a new lab's public addresses (default "global"). In an addition it is
    None, or repeats the choice of the lab.
    """

    regions: tuple[RegionSpec, ...] = ()
    routers: tuple[RouterSpec, ...] = ()
    devices: tuple[DeviceSpec, ...] = ()
    region_links: tuple[RegionLinkSpec, ...] = ()
    addresses: Addresses | None = None
