"""NATs: mapping, filtering, port allocation, and timeouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import Any

import attrs
from attrs import field, frozen

from patchbay.errors import Problem, SpecError, did_you_mean
from patchbay.model.checked import flag, one_of, parse_or_keep, refuse, refuse_wrong, whole_number

__all__ = [
    "FIRST_PORT",
    "NAT_PRESETS",
    "PORTS",
    "Behavior",
    "Nat",
    "NatConfig",
    "PortAllocation",
    "config_of",
    "named",
    "read_nat",
]

# RFC 4787 REQ-3b, RFC 6056: what a NAT gives out beside ports that it preserves: 1024 to 65535.
FIRST_PORT = 1024
PORTS = 65536 - FIRST_PORT

# The kernel counts timeouts in jiffies, and conntrack in 32 bits of them.
_LONGEST_TIMEOUT = 2_000_000


class Behavior(StrEnum):
    """The way a NAT maps or filters (RFC 4787 sections 4.1 and 5).

    It is independent of the remote endpoint, or depends on its address, or on its address and port.
    """

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"

    @property
    def short(self) -> str:
        """Return `EI`, `AD` or `APD`, as in EIM and APDF."""
        return "".join(word[0] for word in self.value.split("-") if word != "and").upper()


@frozen
class PortAllocation:
    """The rule for a new mapping's outside port: `preserve`, `random`, `sequential`, or one of a `block`.

    Raises `SpecError`.
    """

    kind: str
    block: int | None = None

    def __attrs_post_init__(self) -> None:
        size = self.block
        plain = self.kind in _KINDS and size is None
        if not plain and not (self.kind == "block" and type(size) is int and 1 <= size <= PORTS):
            raise refuse(str(self), _ALLOCATIONS)

    def __str__(self) -> str:
        return f"{self.kind}" if self.block is None else f"{self.kind}:{self.block}"

    @classmethod
    def read(cls, value: object) -> PortAllocation:
        """Return the behaviour of that name. Raises `SpecError`."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise refuse(value, _ALLOCATIONS)
        kind, _, size = value.partition(":")
        if kind == "block" and size.isascii() and size.isdigit() and len(size) < 9:
            return cls(kind, int(size))
        if value not in _KINDS:
            raise refuse(value, f"{_ALLOCATIONS}{did_you_mean(value, (*_KINDS, 'block:1008'))}")
        return cls(value)


_KINDS = ("preserve", "random", "sequential")
_ALLOCATIONS = f"'preserve', 'random', 'sequential', 'block:N' with N from 1 to {PORTS}"


_read_behavior = partial(one_of, kind=Behavior)


def _read_protocols(value: object) -> tuple[str, ...]:
    found = list(value) if isinstance(value, list | tuple | set | frozenset) else []
    if not found or any(each not in ("tcp", "udp") for each in found) or len(set(found)) != len(found):
        raise refuse(value, "a list of 'tcp', 'udp', or both")
    return tuple(sorted(found))


def _read_seconds(value: object) -> int:
    return whole_number(value, 1, _LONGEST_TIMEOUT, "seconds")


def _behavior(value: object) -> Behavior:
    return parse_or_keep(_read_behavior, value)


def _allocation(value: object) -> PortAllocation:
    return parse_or_keep(PortAllocation.read, value)


def _protocols(value: object) -> tuple[str, ...]:
    return parse_or_keep(_read_protocols, value)


@frozen
class NatConfig:
    """A NAT of IPv4 (RFC 4787 for UDP, 5382 for TCP, 5508 for ICMP). The defaults are those of `home`.

    `mapping` is what an outside port depends on: the inside endpoint alone, or also the remote address, or
    also the remote port. `filtering` is which remote endpoints may send to it: any, those
    at an address that the inside endpoint has sent to, or those that it has sent to. `port_allocation`
    is "preserve" (the inside port where it is free, else a random one), "random", "sequential", or "block:N"
    (N ports of its own for each inside host); ports given out are 1024 to 65535. `hairpin`: whether inside
    hosts reach each other by outside addresses (RFC 4787 REQ-9).

    Idle mappings expire after `udp_timeout` seconds, of UDP that was answered and has lasted for 2 s after
    `udp_stream_timeout`, of an established TCP connection after `tcp_established_timeout` (others after 240,
    RFC 5382 REQ-5, or after the same where that is less). `protocols` are those that follow mapping and
    filtering; TCP or UDP without is translated as it comes, and only answers come in.

    All may be given as strings. Raises `SpecError`.
    """

    mapping: Behavior = field(default=Behavior.ENDPOINT_INDEPENDENT, converter=_behavior)
    filtering: Behavior = field(default=Behavior.ADDRESS_AND_PORT_DEPENDENT, converter=_behavior)
    port_allocation: PortAllocation = field(default=PortAllocation("preserve"), converter=_allocation)
    hairpin: bool = False
    udp_timeout: int = 30
    udp_stream_timeout: int = 300
    tcp_established_timeout: int = 7440
    protocols: tuple[str, ...] = field(default=("tcp", "udp"), converter=_protocols)

    def __attrs_post_init__(self) -> None:
        refuse_wrong(self, _READERS)


_READERS: Mapping[str, Callable[[object], Any]] = {
    "mapping": _read_behavior,
    "filtering": _read_behavior,
    "port_allocation": PortAllocation.read,
    "hairpin": flag,
    "udp_timeout": _read_seconds,
    "udp_stream_timeout": _read_seconds,
    "tcp_established_timeout": _read_seconds,
    "protocols": _read_protocols,
}


class Nat(StrEnum):
    """Presets of NATs: names for the translation of IPv4 addresses in packets that leave by the uplink."""

    NONE = "none"
    HOME = "home"
    FULL_CONE = "full-cone"
    ADDRESS_RESTRICTED = "address-restricted"
    CORPORATE = "corporate"
    CLOUD_NAT = "cloud-nat"
    CGNAT = "cgnat"
    SYMMETRIC_PREDICTABLE = "symmetric-predictable"

    @property
    def config(self) -> NatConfig | None:
        """Return its configuration, for `attrs.evolve(Nat.HOME.config, hairpin=True)`; None for `NONE`."""
        return NAT_PRESETS.get(self)


_EI, _AD, _APD = Behavior
_RANDOM, _SEQUENTIAL = PortAllocation("random"), PortAllocation("sequential")

# The table of docs/behaviour.md. 30 s for UDP without an answer is the kernel's and OpenWrt's default
# (RFC 4787 REQ-5 asks for 2 minutes), 7440 s is RFC 5382 REQ-5. 350 s is AWS's NAT gateway.
NAT_PRESETS: dict[Nat, NatConfig] = {
    Nat.HOME: NatConfig(),
    Nat.FULL_CONE: NatConfig(filtering=_EI, hairpin=True),
    Nat.ADDRESS_RESTRICTED: NatConfig(filtering=_AD),
    Nat.CORPORATE: NatConfig(_APD, _APD, _RANDOM, False, 30, 120, 3600),
    Nat.CLOUD_NAT: NatConfig(_APD, _APD, _RANDOM, False, 30, 350, 350),
    # RFC 6888: REQ-7 asks for endpoint-independent filtering, blocks are those of REQ-14.
    Nat.CGNAT: NatConfig(_EI, _EI, PortAllocation("block", 1008), hairpin=True),
    Nat.SYMMETRIC_PREDICTABLE: NatConfig(_APD, _APD, _SEQUENTIAL, False, 30, 120, 3600),
}


def read_nat(value: object) -> Nat | NatConfig:
    """Read a NAT: its name, a `NatConfig`, or a dict of its fields. Raises `SpecError`."""
    if isinstance(value, NatConfig):
        return named(value)
    if isinstance(value, Mapping):
        known = attrs.fields_dict(NatConfig)
        if unknown := [key for key in value if key not in known]:
            raise SpecError([Problem(str(unknown[0]), f"unknown key; accepted: {', '.join(known)}")])
        return named(NatConfig(**value))
    return one_of(value, Nat)


def config_of(nat: Nat | NatConfig) -> NatConfig | None:
    """Return the configuration of a NAT; None for `NONE`."""
    return nat if isinstance(nat, NatConfig) else NAT_PRESETS.get(nat)


def named(nat: Nat | NatConfig) -> Nat | NatConfig:
    """Return the preset that is the same as `nat`, or `nat` itself."""
    return next((preset for preset, config in NAT_PRESETS.items() if config == nat), nat)
