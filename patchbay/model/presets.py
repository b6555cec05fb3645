"""Router presets: the table of docs/behaviour.md, and nothing else."""

from __future__ import annotations

from enum import StrEnum

from attrs import evolve, frozen

from patchbay.model.firewall import Firewall, FirewallConfig, firewall_named
from patchbay.model.lab import IpSupport, NatV6, RouterPreset, RouterSpec
from patchbay.model.nat import Nat, NatConfig, config_of
from patchbay.model.nat import named as nat_named

__all__ = ["AddressScope", "ResolvedRouter", "resolve"]


class AddressScope(StrEnum):
    """Whose addresses are below a router: public, its own (RFC 1918, RFC 4193), or a carrier's (RFC 6598)."""

    PUBLIC = "public"
    PRIVATE = "private"
    CARRIER = "carrier"


@frozen
class ResolvedRouter:
    """A router's traits with nothing left open. `scope` and `scope_v6` are those of what is below it."""

    nat: Nat | NatConfig
    firewall: Firewall | FirewallConfig
    ip_support: IpSupport
    scope: AddressScope
    scope_v6: AddressScope
    nat_v6: NatV6 = NatV6.NONE

    def scope_of(self, version: int) -> AddressScope:
        return self.scope if version == 4 else self.scope_v6


_V4, _DUAL = IpSupport.V4_ONLY, IpSupport.DUAL_STACK
_PUBLIC, _PRIVATE, _CARRIER = AddressScope
_DATACENTER = ResolvedRouter(Nat.NONE, Firewall.NONE, _DUAL, _PUBLIC, _PUBLIC)
_ISP_V4 = ResolvedRouter(Nat.NONE, Firewall.NONE, _V4, _PUBLIC, _PUBLIC)

_PRESETS = {
    RouterPreset.HOME: ResolvedRouter(Nat.HOME, Firewall.BLOCK_INBOUND, _DUAL, _PRIVATE, _PRIVATE),
    RouterPreset.DATACENTER: _DATACENTER,
    RouterPreset.PUBLIC: _DATACENTER,
    RouterPreset.ISP_V4: _ISP_V4,
    RouterPreset.PUBLIC_V4: _ISP_V4,
    RouterPreset.MOBILE: ResolvedRouter(Nat.CGNAT, Firewall.BLOCK_INBOUND, _DUAL, _CARRIER, _PUBLIC),
    RouterPreset.ISP_CGNAT: ResolvedRouter(Nat.CGNAT, Firewall.NONE, _DUAL, _CARRIER, _PUBLIC),
    RouterPreset.CORPORATE: ResolvedRouter(Nat.CORPORATE, Firewall.CORPORATE, _DUAL, _PRIVATE, _PRIVATE),
    RouterPreset.HOTEL: ResolvedRouter(Nat.CORPORATE, Firewall.CAPTIVE_PORTAL, _V4, _PRIVATE, _PRIVATE),
    RouterPreset.CLOUD: ResolvedRouter(Nat.CLOUD_NAT, Firewall.NONE, _DUAL, _PRIVATE, _PRIVATE),
}

# v4-only, so that no IPv6 path goes round a NAT under test.
_NO_PRESET = ResolvedRouter(Nat.NONE, Firewall.NONE, _V4, _PUBLIC, _PUBLIC)


def resolve(router: RouterSpec) -> ResolvedRouter:
    """Return the preset's traits, overridden by what the router names itself.

    Without a preset, a router that translates addresses has private ones below it, or a carrier's.
    """
    traits = _PRESETS[router.preset] if router.preset else _NO_PRESET
    named = {
        key: value
        for key in ("nat", "nat_v6", "firewall", "ip_support")
        if (value := getattr(router, key)) is not None
    }
    # A configuration that is that of a preset is the preset.
    nat, firewall = nat_named(named.get("nat", traits.nat)), named.get("firewall", traits.firewall)
    traits = evolve(traits, **{**named, "nat": nat, "firewall": firewall_named(firewall)})
    if not router.preset and config_of(traits.nat) is not None:
        scope = _CARRIER if traits.nat is Nat.CGNAT else _PRIVATE
        traits = evolve(traits, scope=scope, scope_v6=_PRIVATE)
    return traits
