"""The sets in which a NAT remembers its mappings, and their timeouts.

Conntrack translates packets, but by itself it is no NAT of RFC 4787:

- It gives two inside hosts the same outside port as long as they talk to different remote endpoints (port
  overloading, which REQ-3 forbids), and has to move one of them when they come to talk to the same: then
  that host's mapping depends on the destination (REQ-1).
- It knows a mapping for as long as one connection uses it, and not by its inside endpoint.
- It lets in answers alone: filtering is address and port-dependent.

So the table `nat` keeps the NAT's own memory, and tells conntrack in each case what to do:

    mapping    inside endpoint (towards a remote address, or endpoint) -> outside port
    taken      outside ports that are some mapping's
    inbound    outside port -> inside endpoint, for packets that come in unasked
    permitted  remote addresses that an inside endpoint has sent to (address-dependent filtering)

Each exists twice, `brief` and `lasting`, as a mapping lasts until the last of its connections has
expired, and those are of two kinds: unanswered UDP and half-open TCP, or UDP streams and established TCP. One
timeout in one table could only be that of the last packet. Elements are renewed by the packets that renew
the connection in conntrack, so that both end together (RFC 4787 REQ-6 wants outbound refresh; inbound
packets of connections that were begun inside renew too, as conntrack does).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import frozen

from patchbay.model.nat import Behavior
from patchbay.plan.nat_traits import CLOSING, Traits, join
from patchbay.tools.nft import Chain, Hook, Set

__all__ = ["memory_chains", "memory_sets"]

# The inside endpoint of a connection that was begun inside, and of one that was begun outside.
_INSIDE = "meta l4proto . ct original ip saddr . ct original proto-src"
_INSIDE_OF_ANSWER = "meta l4proto . ct reply ip saddr . ct reply proto-src"
# The two ends of a connection as the inside sees them.
CONNECTION = "ipv4_addr . inet_service . ipv4_addr . inet_service"
ENDPOINTS = f"inet_proto . {CONNECTION}"


@frozen
class _Kept:
    """An element that a packet's connection keeps alive: `own` for connections that were begun inside,
    `answered` for those that were begun outside.
    """

    name: str
    type: str
    data: str = ""
    own: str = ""
    own_data: str = ""
    answered: str = ""
    answered_data: str = ""


def _kept(nat: Traits) -> Iterator[_Kept]:
    if nat.maps:
        yield _mapping(nat)
    yield _taken(nat)
    if nat.finds_inside:
        yield _inbound(nat)
    if nat.config.filtering is Behavior.ADDRESS_DEPENDENT:
        yield _Kept(
            "permitted",
            "inet_proto . ipv4_addr . inet_service . ipv4_addr",
            own=f"{_INSIDE} . ct original ip daddr",
            answered=f"{_INSIDE_OF_ANSWER} . ct original ip saddr",
        )
    if nat.two_zones:
        kinds = ("ipv4_addr", "inet_service")[: len(nat.towards)]
        yield _Kept(
            "session",
            join("inet_proto", "inet_service", *kinds),
            own=join("meta l4proto", "ct reply proto-dst", *nat.towards),
        )


def _mapping(nat: Traits) -> _Kept:
    kinds = ("ipv4_addr",)[: len(nat.towards)]
    return _Kept(
        "mapping",
        join("inet_proto", "ipv4_addr", "inet_service", *kinds),
        "inet_service",
        own=nat.inside_key,
        own_data="ct reply proto-dst",
        # A connection from outside does not tell which remote endpoint the mapping was created for.
        answered=_INSIDE_OF_ANSWER if nat.independent else "",
        answered_data="ct original proto-dst",
    )


def _taken(nat: Traits) -> _Kept:
    """Return the set of outside ports that are taken: by host where hosts have blocks of ports."""
    host = nat.blocks
    return _Kept(
        "taken",
        join(*["ipv4_addr"] * host, "inet_proto", "inet_service"),
        own=join(*["ct original ip saddr"] * host, "meta l4proto", "ct reply proto-dst"),
        answered=join(*["ct reply ip saddr"] * host, "meta l4proto", "ct original proto-dst"),
    )


def _inbound(nat: Traits) -> _Kept:
    pool = nat.blocks
    return _Kept(
        "inbound",
        join(*["ipv4_addr"] * pool, "inet_proto", "inet_service"),
        "ipv4_addr . inet_service",
        own=join(*["ct reply ip daddr"] * pool, "meta l4proto", "ct reply proto-dst"),
        own_data="ct original ip saddr . ct original proto-src",
        answered=join(*["ct original ip daddr"] * pool, "meta l4proto", "ct original proto-dst"),
        answered_data="ct reply ip saddr . ct reply proto-src",
    )


def memory_sets(nat: Traits) -> Iterator[Set]:
    if nat.blocks:
        yield Set("outside", "ipv4_addr")
        yield Set("outside_address", "ipv4_addr", "ipv4_addr")
        # Of two bytes: `ip ttl` is one such type.
        yield Set("page", "ip saddr . ip ttl", "ip ttl", typeof=True)
    if not nat.maps:
        for protocol in nat.config.protocols:
            yield Set(f"chosen_{protocol}", CONNECTION, "inet_service", dynamic=True)
    for kept in _kept(nat):
        for tier in ("lasting", "brief"):
            yield Set(f"{kept.name}_{tier}", kept.type, kept.data, dynamic=True)
    if nat.two_zones:
        yield Set("came_in", ENDPOINTS, dynamic=True)
    if nat.hairpin and not nat.lets_in:
        yield Set("met", ENDPOINTS, dynamic=True)


def memory_chains(nat: Traits) -> Iterator[Chain]:
    """After translation each packet keeps alive what its connection depends on."""
    rules = [
        # Whatever went wrong before: nothing leaves from an inside address.
        f'oifname "wan" meta nfproto ipv4 ip saddr != {nat.outsides} drop',
        "meta nfproto != ipv4 return",
        f"meta l4proto != {nat.protocols} return",
        # The router's own connections need their ports too.
        f'oifname "wan" ip saddr {nat.outsides} ct original ip saddr {nat.outsides} jump own_ports',
        f'oifname "wan" ct original ip saddr {nat.outsides} return',
        'oifname "wan" ct direction original jump begun_inside',
        'iifname "wan" ct direction reply jump begun_inside',
    ]
    if nat.answers:
        # A port that a host has asked for may be of another's block.
        learnt = "ct mark 1 " if nat.maps_ports and nat.blocks else ""
        rules.append(f'oifname "wan" ct direction reply {learnt}jump begun_outside')
    if nat.hairpin:
        rules.append('iifname "lan" oifname "lan" ct mark 1 ct direction original jump begun_inside')
        rules.append('iifname "lan" oifname "lan" ct mark 1 ct direction reply jump begun_outside')
    if nat.two_zones:
        rules += _came_in(nat)
    yield Chain("memory", tuple(rules), Hook("filter", "postrouting", "srcnat + 50"))
    kept = tuple(_kept(nat))
    ports = () if nat.blocks else tuple(each for each in kept if each.name in ("taken", "session"))
    yield Chain("own_ports", tuple(_updates(nat, ((it.name, it.own, "") for it in ports))))
    inside = ((it.name, it.own, it.own_data) for it in kept)
    yield Chain("begun_inside", tuple(_updates(nat, inside)))
    if nat.finds_inside or nat.answers:
        outside = ((it.name, it.answered, it.answered_data) for it in kept)
        yield Chain("begun_outside", tuple(_updates(nat, outside)))


def _updates(nat: Traits, kept: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    for name, key, data in kept:
        for condition, tier, seconds in _lifetimes(nat) if key else ():
            value = f" : {data}" if data else ""
            yield f"{condition} update @{name}_{tier} {{ {key} timeout {seconds}s{value} }}"


def _lifetimes(nat: Traits) -> Iterator[tuple[str, str, int]]:
    """Yield (condition, tier, seconds): how long the mapping of a packet's connection lasts from now on."""
    config = nat.config
    if "udp" in config.protocols:
        # The kernel sets `assured` once there are answers and 2 s have passed, and the longer timeout.
        yield "meta l4proto udp ct status & assured == 0", "brief", config.udp_timeout
        yield "meta l4proto udp ct status assured", "lasting", config.udp_stream_timeout
    if "tcp" in config.protocols:
        yield "meta l4proto tcp ct status & assured == 0", "brief", nat.closing
        assured = "meta l4proto tcp ct status assured"
        if config.tcp_established_timeout > CLOSING:
            # Only an established connection has that much time left: its last packets shorten it again.
            yield f"{assured} ct expiration > {CLOSING}s", "lasting", config.tcp_established_timeout
            yield f"{assured} ct expiration <= {CLOSING}s", "lasting", CLOSING
        else:
            yield assured, "lasting", config.tcp_established_timeout


def _came_in(nat: Traits) -> Iterator[str]:
    """Yield rules that remember remote endpoints whose last packet came in by another mapping than their own.

    They remember for a shorter time than conntrack has the connection, because otherwise an answer would
    begin a new connection.
    """
    zone = f"ct zone {nat.zone + 1}"
    # If the last packet of an endpoint came by the endpoint's own mapping, answers leave by that mapping
    # again.
    here = "meta l4proto . ip daddr . th dport . ip saddr . th sport"
    yield f'iifname "wan" ct direction reply ct zone {nat.zone} delete @came_in {{ {here} }}'
    inbound = f'iifname "wan" ct direction original {zone}'
    answers = f'oifname "wan" ct direction reply {zone}'
    for condition, _, seconds in _lifetimes(nat):
        # The kernel forgets a connection that was closed after 10 s at the earliest.
        most = 9 if "tcp" in condition and seconds <= CLOSING else seconds - 1
        shorter = max(1, min(most, seconds - 1))
        for side, remote in ((inbound, "ip saddr . th sport"), (answers, "ip daddr . th dport")):
            element = f"{_INSIDE_OF_ANSWER} . {remote} timeout {shorter}s"
            yield f"{side} {condition} update @came_in {{ {element} }}"
