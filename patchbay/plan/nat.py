"""The rules of a NAT: the whole RFC 4787 grid out of one `NatConfig`, as one table.

`nat_memory` tells what the table remembers and why, `nat_ports` how a port is found. Here: what may come in.
"""

from __future__ import annotations

from collections.abc import Iterator

from patchbay.layout.blocks import block_of, pages
from patchbay.layout.layout import PolicyLayout, RouterLayout, of_version
from patchbay.model.nat import Behavior, config_of
from patchbay.plan.nat_memory import memory_chains, memory_sets
from patchbay.plan.nat_ports import port_chains
from patchbay.plan.nat_traits import Traits, join
from patchbay.tools.nft import Chain, Hook, Table

__all__ = ["UNSOLICITED", "block_elements", "nat_table"]

# What must reach the router itself from its uplink: ping, and nothing else unsolicited.
# Neighbour discovery is `untracked` for conntrack, so that dropping `new` does not touch it.
UNSOLICITED = (
    'iifname "wan" icmp type echo-request accept',
    'iifname "wan" icmpv6 type echo-request accept',
    # Dropped here, an unsolicited packet never confirms a conntrack entry. Were it confirmed, it
    # would occupy the mapping that an inside host gets next, and the kernel would change that
    # host's port (the host that sends first would break RFC 4787 REQ-1).
    'iifname "wan" ct state new,invalid drop',
)


def nat_table(router: RouterLayout, policy: PolicyLayout) -> Table | None:
    """Return the router's table `nat`; None where nothing is translated, and nothing was ever forgotten."""
    config = config_of(policy.nat)
    outside = of_version(router.uplink.addresses, 4) if router.uplink else None
    # Two for each generation; conntrack has 16 bits of them.
    zone = 2 * policy.generation % 65536
    if config is None or outside is None:
        chains = tuple(_generation(zone))
        return Table("nat", chains) if chains else None
    nat = Traits(config, zone, str(outside.ip), policy.port_mapping)
    return Table(
        "nat",
        (*_zones(nat), *_incoming(nat), *_forward(nat), _input(nat), *port_chains(nat), *memory_chains(nat)),
        tuple(memory_sets(nat)),
    )


def block_elements(router: RouterLayout, policy: PolicyLayout) -> Iterator[tuple[str, str]]:
    """Yield (subject, elements) for a port-block NAT, as nft commands without `add`.

    Each outside address has an element, and each host with a block: its outside address, and the upper byte
    of its ports, page by page.
    """
    config = config_of(policy.nat)
    size = config.port_allocation.block if config else None
    own = of_version(router.uplink.addresses, 4) if router.uplink else None
    if size is None or own is None:
        return
    for address in (own.ip, *policy.pool):
        yield f"outside {address}", f"outside {{ {address} }}\n"
    for host, number in policy.blocks.items():
        block = block_of(router, policy, size, number)
        first = block.first // 256
        each = ", ".join(f"{host} . {page} : {first + page}" for page in range(pages(size)))
        elements = f"outside_address {{ {host} : {block.outside} }}\npage {{ {each} }}\n"
        yield f"block {host}", elements


def _generation(zone: int) -> Iterator[Chain]:
    """To forget is to begin a new conntrack zone: in one moment, with the rules, for all connections."""
    if zone:
        for hook in ("prerouting", "output"):
            yield Chain(f"zone_{hook}", (f"ct zone set {zone}",), Hook("filter", hook, "raw"))


def _zones(nat: Traits) -> Iterator[Chain]:
    """Assign conntrack zones.

    A connection through a mapping that was not made for its sender is in the generation's second zone. The
    first `ct zone set` counts. The inside endpoint's packets to a remote endpoint that came in follow the
    mapping by which it last came in.
    """
    if not nat.two_zones:
        yield from _generation(nat.zone)
        return
    base, other = nat.zone, nat.zone + 1
    remote = ("ip saddr", "th sport")[: len(nat.towards)]
    session = join("meta l4proto", "th dport", *remote)
    came_in = "meta l4proto . ip saddr . th sport . ip daddr . th dport"
    rules = (
        f'iifname != "wan" {nat.l4} {came_in} @came_in ct zone set {other}',
        f'iifname != "wan" ct zone set {base}',
        f"{nat.l4} {session} @session_lasting ct zone set {base}",
        f"{nat.l4} {session} @session_brief ct zone set {base}",
        f"{nat.l4} ct zone set {other}",
        f"ct zone set {base}",
    )
    yield Chain("zone_prerouting", rules, Hook("filter", "prerouting", "raw"))
    yield Chain("zone_output", (f"ct zone set {base}",), Hook("filter", "output", "raw"))


def _incoming(nat: Traits) -> Iterator[Chain]:
    if not nat.finds_inside:
        return
    sides = ['"wan"'] if not nat.hairpin else ['"wan"', '"lan"'] if nat.lets_in else ['"lan"']
    yield Chain(
        "prerouting",
        tuple(f"iifname {side} ip daddr {nat.outsides} {nat.l4} jump incoming" for side in sides),
        Hook("nat", "prerouting", "dstnat"),
    )
    key = join(*(("ip daddr",) if nat.blocks else ()), "meta l4proto", "th dport")
    yield Chain(
        "incoming",
        (
            # Tells these from ports that somebody forwarded by other means.
            "ct mark set 1",
            f"{nat.l4} dnat ip to {key} map @inbound_lasting",
            f"{nat.l4} dnat ip to {key} map @inbound_brief",
        ),
    )


def _forward(nat: Traits) -> Iterator[Chain]:
    rules = [
        # A neighbour on the uplink that knows the inside prefix must not get in by routing to it.
        'iifname "wan" meta nfproto ipv4 ct state new ct status & dnat == 0 drop',
        # What conntrack cannot place is not translated: it would go out from its private address.
        'oifname "wan" meta nfproto ipv4 ct state invalid drop',
    ]
    host = ("ip daddr",) if nat.blocks else ()
    if nat.lets_in:
        # A remote endpoint that was let in stays as long as the mapping does, however much it sends.
        taken = join(*host, "meta l4proto", "ct original proto-dst")
        rules.append(
            f'iifname "wan" ct direction original ct mark 1 {nat.l4} {taken} != @taken_lasting '
            f"{taken} != @taken_brief drop"
        )
    if nat.config.filtering is Behavior.ADDRESS_DEPENDENT:
        rules.append(f'iifname "wan" ct state new ct mark 1 {nat.l4} jump permitted')
    rules += _hairpin_rules(nat)
    yield Chain("forward", tuple(rules), Hook("filter", "forward", "filter"))
    if nat.config.filtering is Behavior.ADDRESS_DEPENDENT:
        # RFC 4787 section 5 speaks of the inside endpoint: by which of its mappings it has sent to
        # the address does not matter.
        yield _chain_of_permitted(nat, "permitted", "ip saddr")
        if nat.hairpin:
            yield _chain_of_permitted(nat, "permitted_hairpin", "ct original ip daddr")


def _chain_of_permitted(nat: Traits, name: str, remote: str) -> Chain:
    key = f"meta l4proto . ip daddr . th dport . {remote}"
    return Chain(
        name,
        (
            f"{nat.l4} {key} @permitted_lasting return",
            f"{nat.l4} {key} @permitted_brief return",
            "drop",
        ),
    )


def _hairpin_rules(nat: Traits) -> Iterator[str]:
    """Filtering between inside hosts: a packet counts as sent even if the other side drops it."""
    if not nat.hairpin or nat.config.filtering is Behavior.ENDPOINT_INDEPENDENT:
        return
    new = f'iifname "lan" oifname "lan" ct state new ct mark 1 {nat.l4}'
    if nat.config.filtering is Behavior.ADDRESS_DEPENDENT:
        sent = "meta l4proto . ip saddr . th sport . ct original ip daddr"
        yield from _noted(nat, new, "permitted_brief", sent)
        yield f"{new} jump permitted_hairpin"
    else:
        sent = "meta l4proto . ip saddr . th sport . ip daddr . th dport"
        met = "meta l4proto . ip daddr . th dport . ip saddr . th sport"
        yield from _noted(nat, new, "met", sent)
        yield f"{new} {met} != @met drop"


def _noted(nat: Traits, condition: str, where: str, element: str) -> Iterator[str]:
    for protocol in nat.config.protocols:
        seconds = nat.config.udp_timeout if protocol == "udp" else nat.closing
        yield f"{condition} meta l4proto {protocol} update @{where} {{ {element} timeout {seconds}s }}"


def _input(nat: Traits) -> Chain:
    # To its outside address the router is as silent towards the inside.
    inside = f'iifname != "wan" ip daddr {nat.outsides} meta l4proto {{ tcp, udp }} ct state new drop'
    return Chain("input", (*UNSOLICITED, inside), Hook("filter", "input", "filter"))
