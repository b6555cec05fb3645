"""The address plan: which addresses a lab uses. docs/addresses.md says the same for users.

All public addresses are from blocks set aside for documentation and benchmarks, so that no lab
ever speaks in the name of somebody's real network.
"""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from attrs import frozen

from patchbay.layout.layout import Interface, Network
from patchbay.model.presets import Scope

__all__ = [
    "CARRIER",
    "IX_LAN",
    "PRIVATE",
    "PUBLIC",
    "REGION",
    "ULA",
    "V6_PUBLIC",
    "V6_REGION",
    "Pool",
    "host_in",
    "mac_of",
    "of",
]


@frozen
class Pool:
    """Networks given out one after another: `count` of `prefixlen` from each block, in order."""

    name: str
    blocks: tuple[tuple[Network, int], ...]
    # The router's key that names a network instead of taking one from the pool.
    instead: str = ""

    @property
    def size(self) -> int:
        return sum(1 << (prefixlen - block.prefixlen) for block, prefixlen in self.blocks)

    def network(self, number: int) -> Network | None:
        """Return the network of that number, or None past the end of the pool."""
        for block, prefixlen in self.blocks:
            count = 1 << (prefixlen - block.prefixlen)
            if number < count:
                step = 1 << (block.max_prefixlen - prefixlen)
                base = int(block.network_address) + number * step
                return type(block)((base, prefixlen))
            number -= count
        return None


# TEST-NET-3, RFC 5737: 253 routers on the exchange; and documentation IPv6, RFC 3849.
IX_LAN: tuple[Interface, ...] = (IPv4Interface("203.0.113.1/24"), IPv6Interface("2001:db8::1/64"))

# Benchmarking, RFC 2544. The first 64 public routers can have 1021 devices each, the next 192 253.
PUBLIC = Pool(
    "public",
    (
        (IPv4Network("198.18.0.0/16"), 22),
        (IPv4Network("198.19.0.0/17"), 24),
        (IPv4Network("198.19.128.0/18"), 24),
    ),
    "downstream_cidr",
)
REGION = Pool("region", ((IPv4Network("198.19.192.0/18"), 24),))
# RFC 1918: 256 routers with 65,533 devices each. The first address below router N is 10.N.0.1.
PRIVATE = Pool("private", ((IPv4Network("10.0.0.0/8"), 16),), "downstream_cidr")

# Shared address space, RFC 6598, between a carrier's NAT and its customers: 256 with 16,381 hosts each.
CARRIER = Pool("shared", ((IPv4Network("100.64.0.0/10"), 18),), "downstream_cidr")

# A /48 for each router, whose LAN is its first /64 (RFC 6177). 2001:db8:0::/48 is the exchange's.
V6_PUBLIC = Pool("public IPv6", ((IPv6Network("2001:db8::/32"), 48),), "downstream_cidr_v6")
# Unique local, RFC 4193. Its 40 random bits are a counter here, so that a capture can be read.
ULA = Pool("ULA", ((IPv6Network("fd00::/32"), 48),), "downstream_cidr_v6")
# Benchmarking, RFC 5180 and its erratum 1752.
V6_REGION = Pool("region IPv6", ((IPv6Network("2001:2::/48"), 64),))


def of(version: int, scope: Scope) -> Pool:
    """Return the pool that the network below a router is taken from."""
    if version == 6:
        return V6_PUBLIC if scope is Scope.PUBLIC else ULA
    return {Scope.PUBLIC: PUBLIC, Scope.PRIVATE: PRIVATE, Scope.CARRIER: CARRIER}[scope]


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
