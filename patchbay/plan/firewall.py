"""The rules of a firewall: one table of family inet, so that both IP versions obey it."""

from __future__ import annotations

from collections.abc import Iterator

from patchbay.layout.layout import PolicyLayout
from patchbay.model.firewall import FirewallConfig, PortPolicy, firewall_config_of
from patchbay.plan.nat import UNSOLICITED
from patchbay.plan.port_mapping import PINHOLE_RULE
from patchbay.tools.nft import Chain, Hook, Table

__all__ = ["firewall_table"]

# RFC 4890 section 4.3.1: dropping these breaks IPv6 for the hosts behind the firewall.
_ICMPV6_MUST_PASS = (
    "destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request, echo-reply"
)

# Without these no sender hears that a packet was too large (RFC 1191, RFC 8201): a path MTU black hole
# (RFC 2923 section 2.1).
_TOO_LARGE = (
    "icmp type destination-unreachable icmp code frag-needed drop",
    "icmpv6 type packet-too-big drop",
)


def firewall_table(policy: PolicyLayout) -> Table | None:
    """Return the router's table `filter`; None where everything passes."""
    config = firewall_config_of(policy.firewall)
    too_large = _TOO_LARGE if policy.block_icmp_frag_needed else ()
    forward = (*too_large, *_forward(config, (PINHOLE_RULE,) if policy.port_mapping else ()))
    chains = [Chain("forward", forward, Hook("filter", "forward", "filter"))] if forward else []
    if config.block_inbound:
        chains.append(Chain("input", UNSOLICITED, Hook("filter", "input", "filter")))
    if too_large:
        chains.append(Chain("output", too_large, Hook("filter", "output", "filter")))
    return Table("filter", tuple(chains)) if chains else None


def _forward(config: FirewallConfig, let_in: tuple[str, ...]) -> Iterator[str]:
    if config == FirewallConfig():
        return
    yield "ct state established,related accept"
    if config.block_inbound:
        # What the NAT's own filtering let in is not for the firewall to stop.
        yield "ct status dnat accept"
        yield from let_in
        yield f'iifname "wan" icmpv6 type {{ {_ICMPV6_MUST_PASS} }} accept'
        yield 'iifname "wan" drop'
    yield from _outbound("tcp", config.outbound_tcp)
    yield from _outbound("udp", config.outbound_udp)


def _outbound(protocol: str, policy: PortPolicy) -> Iterator[str]:
    if policy == "none":
        yield f'oifname "wan" meta l4proto {protocol} drop'
    elif policy != "all":
        ports = ", ".join(map(str, policy))
        yield f'oifname "wan" {protocol} dport != {{ {ports} }} drop'
