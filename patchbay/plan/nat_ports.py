"""The chains that choose the outside port of a new connection."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from patchbay.model.nat import FIRST_PORT, PORTS
from patchbay.plan.nat_traits import Traits, join
from patchbay.tools.nft import Chain, Hook

__all__ = ["port_chains"]

# Ports are tried one after another until one is free: jumps to a chain of jumps make 64 tries of 16 rules.
_JUMPS = 8
# nft checks every way through the chains when rules are loaded.
_MOST_TRIES = 4096


def port_chains(nat: Traits) -> Iterator[Chain]:
    begin = ['oifname "wan" meta nfproto ipv4 jump outgoing']
    if nat.hairpin:
        # The other sees the outside endpoint (RFC 4787 REQ-9a).
        begin.append('iifname "lan" oifname "lan" ct mark 1 ct status dnat jump outgoing')
    yield Chain("postrouting", tuple(begin), Hook("nat", "postrouting", "srcnat"))
    yield Chain("outgoing", tuple(_translate(nat)))
    yield Chain("claim", tuple(_claim(nat)))
    yield Chain("draw", tuple(_draw(nat)))
    for tries in _drawing(nat)[:-1]:
        yield Chain(f"draw_{tries * _JUMPS}", (_jump(tries),) * _JUMPS)


def _drawing(nat: Traits) -> tuple[int, ...]:
    """Return how many ports each level of chains tries: all of a block in order, or 64 of all others.

    Where nine of ten ports are taken, 64 random ones hold a free port for all but one in 800 new mappings.
    """
    wanted = min(nat.config.port_allocation.block or _JUMPS**2, _MOST_TRIES)
    levels = [1]
    while levels[-1] * _JUMPS <= wanted:
        levels.append(levels[-1] * _JUMPS)
    return tuple(levels)


def _jump(tries: int) -> str:
    return "jump draw" if tries == 1 else f"jump draw_{tries}"


def _translate(nat: Traits) -> Iterator[str]:
    yield f"ip saddr {nat.outsides} return"
    # The kernel keeps identifiers of echo requests apart (RFC 5508 REQ-1), and other protocols as it can.
    yield f"meta l4proto != {nat.protocols} snat ip to {nat.address}"
    for tier in ("lasting", "brief") if nat.maps else ():
        yield _by_mapping(nat, tier)
    if nat.config.port_allocation.kind == "preserve":
        yield "@th,16,16 set th sport"
        yield "jump claim"
    most = _drawing(nat)[-1]
    yield from (_jump(most),) * ceil(min(nat.config.port_allocation.block or most, _MOST_TRIES) / most)
    # No port is left: existing mappings stay, and a new one gets nothing (RFC 4787 REQ-3).
    yield "drop"


def _by_mapping(nat: Traits, tier: str) -> str:
    return f"{nat.l4} snat ip to {nat.address} : {nat.inside_key} map @mapping_{tier}"


def _claim(nat: Traits) -> Iterator[str]:
    """Take the port that is the packet's destination port, if it is free; else return."""
    host = ("ct original ip saddr",) if nat.blocks else ()
    key = join(*host, "meta l4proto", "th dport")
    for tier in ("lasting", "brief"):
        yield f"{nat.l4} {key} @taken_{tier} return"
    ports = ("@th,0,16 set ct original proto-src", "@th,16,16 set ct reply proto-src")
    restore = tuple(f"{nat.l4} {each}" for each in ports)
    # `add` leaves alone what is there: of two packets at once from one endpoint, the first decides.
    if nat.maps:
        for protocol in nat.config.protocols:
            seconds = nat.config.udp_timeout if protocol == "udp" else nat.closing
            element = f"{nat.inside_key} timeout {seconds}s : th dport"
            yield f"meta l4proto {protocol} add @mapping_brief {{ {element} }}"
        yield from restore
        yield _by_mapping(nat, "brief")
        return
    # A mapping towards one endpoint is what conntrack has from here on. (A key with the protocol
    # besides is more than nft 1.0 has registers for.)
    key = "ct original ip saddr . ct original proto-src . ct original ip daddr . ct original proto-dst"
    for protocol in nat.config.protocols:
        yield f"meta l4proto {protocol} add @chosen_{protocol} {{ {key} timeout 1s : th dport }}"
    yield from restore
    for protocol in nat.config.protocols:
        yield f"meta l4proto {protocol} snat ip to {nat.address} : {key} map @chosen_{protocol}"


def _draw(nat: Traits) -> Iterator[str]:
    """Draw a port, and claim it.

    No expression of nft adds or shifts two values, and `numgen` counts in 32 bits and the machine's byte
    order, which `snat` takes for a port as they stand. But what is written to a packet is converted
    (`nft --debug=netlink`: byteorder hton). So the number is written over the packet's two ports, and the
    port is then where the destination port was; `claim` puts both back, out of conntrack, before they
    are translated. As a raw payload (@th) no checksum is touched on the way.
    """
    allocation = nat.config.port_allocation
    if allocation.block is not None:
        # The third byte is the page of the block; `page` has the upper byte of its ports.
        yield f"@th,0,32 set numgen inc mod {allocation.block}"
        yield "@th,16,8 set ct original ip saddr . @th,16,8 map @page"
    else:
        how = "inc" if allocation.kind == "sequential" else "random"
        yield f"@th,0,32 set numgen {how} mod {PORTS} offset {FIRST_PORT}"
    yield "jump claim"
