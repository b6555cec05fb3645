"""What a router preset means. The table of docs/behaviour.md, and nothing else."""

from __future__ import annotations

from attrs import frozen

from patchbay.model.lab import Firewall, IpSupport, Nat, NatV6, RouterPreset, RouterSpec

__all__ = ["ResolvedRouter", "resolve"]


@frozen
class ResolvedRouter:
    """A router's traits with nothing left open. `private`: below it are RFC 1918 addresses and a ULA."""

    nat: Nat
    nat_v6: NatV6
    firewall: Firewall
    ip_support: IpSupport
    private: bool


_DATACENTER = ResolvedRouter(Nat.NONE, NatV6.NONE, Firewall.NONE, IpSupport.DUAL_STACK, private=False)

_PRESETS = {
    RouterPreset.HOME: ResolvedRouter(
        Nat.HOME, NatV6.NONE, Firewall.BLOCK_INBOUND, IpSupport.DUAL_STACK, private=True
    ),
    RouterPreset.DATACENTER: _DATACENTER,
    RouterPreset.PUBLIC: _DATACENTER,
}

# v4-only, so that no IPv6 path goes round a NAT under test.
_NO_PRESET = ResolvedRouter(Nat.NONE, NatV6.NONE, Firewall.NONE, IpSupport.V4_ONLY, private=False)


def resolve(router: RouterSpec) -> ResolvedRouter:
    """The preset's traits, overridden by what the router names itself.

    Without a preset, a router that translates addresses has private ones below it.
    """
    preset = _PRESETS[router.preset] if router.preset else _NO_PRESET
    nat = preset.nat if router.nat is None else router.nat
    return ResolvedRouter(
        nat=nat,
        nat_v6=preset.nat_v6 if router.nat_v6 is None else router.nat_v6,
        firewall=preset.firewall if router.firewall is None else router.firewall,
        ip_support=preset.ip_support if router.ip_support is None else router.ip_support,
        private=preset.private if router.preset else nat is not Nat.NONE,
    )
