"""The address plan: which addresses a lab uses. docs/addresses.md says the same for users.

Public addresses are from blocks that programs take for public, because peer-to-peer software does not try
to connect to the ranges of documentation and benchmarks. Labs of `Addresses.DOCUMENTATION` have those ranges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from attrs import frozen

from patchbay.layout.layout import Interface, Network
from patchbay.model.lab import Addresses
from patchbay.model.presets import AddressScope

__all__ = ["CARRIER", "PRIVATE", "PUBLIC_PLANS", "ULA", "Pool", "PublicPlan", "host_in", "mac_of"]


@frozen
class Pool:
    """Networks given out one after another, in order.

    Each of `blocks` is a network, and the prefix length of the networks that are taken from it."""

    name: str
    blocks: tuple[tuple[Network, int], ...]
    # The router's key that names a network instead of taking one from the pool.
    instead: str = ""
    # The number of its first network within the blocks.
    first: int = 0

    @property
    def size(self) -> int:
        return sum(1 << (prefixlen - block.prefixlen) for block, prefixlen in self.blocks) - self.first

    def network(self, number: int) -> Network | None:
        """Return the network of that number, counted from 0, or None past the end of the pool."""
        number += self.first
        for block, prefixlen in self.blocks:
            count = 1 << (prefixlen - block.prefixlen)
            if number < count:
                step = 1 << (block.max_prefixlen - prefixlen)
                base = int(block.network_address) + number * step
                return type(block)((base, prefixlen))
            number -= count
        return None


# RFC 1918: 256 routers with 65,533 devices each. The first address below router N is 10.N.0.1.
PRIVATE = Pool("private", ((IPv4Network("10.0.0.0/8"), 16),), "downstream_cidr")

# Shared address space, RFC 6598, between a carrier's NAT and its customers: 256 with 16,381 hosts each.
CARRIER = Pool("shared", ((IPv4Network("100.64.0.0/10"), 18),), "downstream_cidr")

# Unique local, RFC 4193. Its 40 random bits are a counter here, so that a capture can be read.
ULA = Pool("ULA", ((IPv6Network("fd00::/32"), 48),), "downstream_cidr_v6")


@frozen
class PublicPlan:
    """The public addresses of a lab: the exchange's own, and the pools of regions and public routers."""

    exchange: tuple[Interface, ...]
    region: Pool
    region_v6: Pool
    public: Pool
    # A /48 for each router, whose LAN is its first /64 (RFC 6177). The first /48 is the exchange's.
    public_v6: Pool

    def below(self, version: int, scope: AddressScope) -> Pool:
        """Return the pool that the network below a router is taken from."""
        if version == 6:
            return self.public_v6 if scope is AddressScope.PUBLIC else ULA
        return {
            AddressScope.PUBLIC: self.public,
            AddressScope.PRIVATE: PRIVATE,
            AddressScope.CARRIER: CARRIER,
        }[scope]


PUBLIC_PLANS: Mapping[Addresses, PublicPlan] = {
    # 26/8 and 55/8 are assigned to the US Department of Defense (IANA, IPv4 Address Space). 2d00::/8 is
    # reserved, so nobody's (IANA, IPv6 Global Unicast Address Assignments). Each network has a /16 of its
    # own, because peer-to-peer software takes the addresses of a /16 for one group of peers (Bitcoin Core,
    # netgroup.cpp).
    Addresses.GLOBAL: PublicPlan(
        exchange=(IPv4Interface("26.0.0.1/16"), IPv6Interface("2d00::1/64")),
        region=Pool("region", ((IPv4Network("26.0.0.0/8"), 16),), first=1),
        region_v6=Pool("region IPv6", ((IPv6Network("2d01::/48"), 64),), first=1),
        public=Pool("public", ((IPv4Network("55.0.0.0/8"), 16),), "downstream_cidr"),
        public_v6=Pool("public IPv6", ((IPv6Network("2d00::/32"), 48),), "downstream_cidr_v6", first=1),
    ),
    Addresses.DOCUMENTATION: PublicPlan(
        # TEST-NET-3, RFC 5737: 253 routers on the exchange; and documentation IPv6, RFC 3849.
        exchange=(IPv4Interface("203.0.113.1/24"), IPv6Interface("2001:db8::1/64")),
        # Benchmarking, RFC 2544; RFC 5180 and its erratum 1752.
        region=Pool("region", ((IPv4Network("198.19.192.0/18"), 24),)),
        region_v6=Pool("region IPv6", ((IPv6Network("2001:2::/48"), 64),)),
        # The first 64 public routers can have 1021 devices each, the next 192 253.
        public=Pool(
            "public",
            (
                (IPv4Network("198.18.0.0/16"), 22),
                (IPv4Network("198.19.0.0/17"), 24),
                (IPv4Network("198.19.128.0/18"), 24),
            ),
            "downstream_cidr",
        ),
        public_v6=Pool("public IPv6", ((IPv6Network("2001:db8::/32"), 48),), "downstream_cidr_v6", first=1),
    ),
}


def host_in(network: Network, number: int) -> Interface | None:
    """Return the host of that number in `network`; None past its end, in IPv4 from the broadcast on."""
    last = network.num_addresses - (1 if network.version == 4 else 0)
    if number >= last:
        return None
    value = (int(network.network_address) + number, network.prefixlen)
    return IPv4Interface(value) if network.version == 4 else IPv6Interface(value)


def mac_of(node: str, iface: str, attempt: int = 0) -> str:
    """Return a locally administered unicast MAC derived from names: the same in every run."""
    text = f"{node}\0{iface}\0{attempt}".encode("utf-8", "surrogateescape")
    return "02:" + hashlib.blake2b(text, digest_size=5).digest().hex(":")
