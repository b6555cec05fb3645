"""Which rules a router has: its NAT and its firewall, as one ruleset."""

from __future__ import annotations

from patchbay.addressing.layout import RouterLayout, of_version
from patchbay.model.lab import Firewall, Nat
from patchbay.tools.nft import Chain, Table, render

__all__ = ["conntrack_timeouts", "ruleset"]

# What must reach the router itself from its uplink: ping (BEHAVIOUR: nothing else unsolicited).
# Neighbour discovery is `untracked` for conntrack, so that dropping `new` does not touch it.
_GUARD = Chain(
    "input",
    "filter",
    "input",
    "filter",
    (
        'iifname "wan" icmp type echo-request accept',
        'iifname "wan" icmpv6 type echo-request accept',
        # Dropped here, an unsolicited packet never confirms a conntrack entry. Were it confirmed, it
        # would occupy the mapping that an inside host gets next, and the kernel would change that
        # host's port (RFC 4787 REQ-1 would be broken by whoever sends first).
        'iifname "wan" ct state new,invalid drop',
    ),
)

# RFC 4890 section 4.3.1: dropping these breaks IPv6 for the hosts behind the firewall.
_ICMPV6_MUST_PASS = (
    "destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request, echo-reply"
)


def ruleset(router: RouterLayout) -> str | None:
    """The router's whole ruleset as `nft -f` reads it; None if it neither translates nor filters."""
    tables = (*_nat(router), *_firewall(router))
    return render(tables) if tables else None


def _nat(router: RouterLayout) -> tuple[Table, ...]:
    outside = of_version(router.uplink.addresses, 4) if router.uplink else None
    if router.nat is Nat.NONE or outside is None:
        return ()
    # snat to one address keeps the port where it is free, and one inside address and port keeps
    # one mapping whatever it talks to: endpoint-independent mapping (RFC 4787 REQ-1, nf_nat_core.c
    # find_appropriate_src). Replies are matched on address and port: APDF.
    translate = Chain(
        "postrouting", "nat", "postrouting", "srcnat",
        (f'oifname "wan" meta nfproto ipv4 snat ip to {outside.ip}',),
    )  # fmt: skip
    # A neighbour on the uplink that knows the inside prefix must not get in by routing to it.
    filtering = Chain(
        "forward", "filter", "forward", "filter",
        (
            'iifname "wan" meta nfproto ipv4 ct state new ct status & dnat == 0 drop',
            # What conntrack cannot place is not translated: it would go out from its private address.
            'oifname "wan" meta nfproto ipv4 ct state invalid drop',
        ),
    )  # fmt: skip
    return (Table("nat", (translate, filtering, _GUARD)),)


def _firewall(router: RouterLayout) -> tuple[Table, ...]:
    if router.firewall is Firewall.NONE:
        return ()
    forward = Chain(
        "forward", "filter", "forward", "filter",
        (
            "ct state established,related accept",
            # What the NAT's own filtering let in is not for the firewall to stop.
            "ct status dnat accept",
            f'iifname "wan" icmpv6 type {{ {_ICMPV6_MUST_PASS} }} accept',
            'iifname "wan" drop',
        ),
    )  # fmt: skip
    return (Table("filter", (forward, _GUARD)),)


def conntrack_timeouts(router: RouterLayout) -> tuple[tuple[str, int], ...]:
    """The seconds after which an idle mapping of the router's NAT expires (`home`: 30, 300, 7440).

    RFC 4787 REQ-5 asks for 2 minutes and RFC 5382 REQ-5 for 2 h 4 min (7440 s); home routers'
    30 s for UDP without a reply is the kernel's and OpenWrt's default.
    """
    if not _nat(router):
        return ()
    return (("udp_timeout", 30), ("udp_timeout_stream", 300), ("tcp_timeout_established", 7440))
