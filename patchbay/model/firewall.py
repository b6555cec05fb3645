"""Firewalls: which new flows a router lets in and out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

from attrs import field, frozen

from patchbay.model.checked import flag, parse_or_keep, refuse, refuse_wrong

__all__ = [
    "FIREWALL_PRESETS",
    "Firewall",
    "FirewallConfig",
    "PortPolicy",
    "firewall_config_of",
    "firewall_named",
]

# "all", "none", or these destination ports alone.
PortPolicy = str | tuple[int, ...]


def _read_ports(value: object) -> PortPolicy:
    if isinstance(value, str) and value in ("all", "none"):
        return value
    ports = tuple(value) if isinstance(value, list | tuple | set | frozenset) else ()
    if not ports or any(type(port) is not int or not 1 <= port <= 65535 for port in ports):
        raise refuse(value, '"all", "none", or a list of ports from 1 to 65535')
    return tuple(sorted(set(ports)))


def _ports(value: object) -> PortPolicy:
    return parse_or_keep(_read_ports, value)


@frozen
class FirewallConfig:
    """A firewall of a router, for packets between its uplink and the network below, in both IP versions.

    `block_inbound`: from the uplink come only answers, what the NAT's own filtering lets in, and the
    ICMPv6 that RFC 4890 wants through. `outbound_tcp` and `outbound_udp` are which destination ports new
    flows from below may have: "all", "none", or a list of them; the rest is dropped without a word.
    Other protocols are not looked at on their way out. Raises `SpecError`.
    """

    block_inbound: bool = False
    outbound_tcp: PortPolicy = field(default="all", converter=_ports)
    outbound_udp: PortPolicy = field(default="all", converter=_ports)

    def __attrs_post_init__(self) -> None:
        refuse_wrong(self, _READERS)


_READERS: Mapping[str, Callable[[object], object]] = {
    "block_inbound": flag,
    "outbound_tcp": _read_ports,
    "outbound_udp": _read_ports,
}


class Firewall(StrEnum):
    """A firewall by a name."""

    NONE = "none"
    BLOCK_INBOUND = "block-inbound"
    CORPORATE = "corporate"
    CAPTIVE_PORTAL = "captive-portal"


FIREWALL_PRESETS: dict[Firewall, FirewallConfig] = {
    Firewall.NONE: FirewallConfig(),
    Firewall.BLOCK_INBOUND: FirewallConfig(block_inbound=True),
    Firewall.CORPORATE: FirewallConfig(True, (80, 443), (53,)),
    Firewall.CAPTIVE_PORTAL: FirewallConfig(True, "all", (53,)),
}


def firewall_config_of(firewall: Firewall | FirewallConfig) -> FirewallConfig:
    """Return the configuration of a firewall."""
    return firewall if isinstance(firewall, FirewallConfig) else FIREWALL_PRESETS[firewall]


def firewall_named(firewall: Firewall | FirewallConfig) -> Firewall | FirewallConfig:
    """Return the preset that is the same as `firewall`, or `firewall` itself."""
    return next((preset for preset, config in FIREWALL_PRESETS.items() if config == firewall), firewall)
