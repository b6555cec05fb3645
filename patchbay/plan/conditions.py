"""Resources that act on the packets of wires: qdiscs of the kernel, or relays; and GSO switched off."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from patchbay.layout.layout import VethEnd, WireLayout
from patchbay.model.link import Emulator, Impairment
from patchbay.plan.resources import GONE, Key, Phase, Resource, Resources
from patchbay.plan.shape import shape_of
from patchbay.plan.view import View, emulator_of, end_key
from patchbay.tools import ip, tc
from patchbay.tools.commands import CheckQdiscs, EndService, Ip, StartService, Tc
from patchbay.tools.service import Service

__all__ = ["RELAY", "acting", "relay_name"]

RELAY = "patchbay.emulator.relay"

_ANY_SEGMENTS = 65535


def relay_name(wire: WireLayout) -> str:
    """Return what the command line of the wire's relay begins with."""
    return f"{RELAY} --far {wire.far.name}"


def acting(view: View, wire: WireLayout) -> Resources:
    """Return the resources that act on a wire's packets."""
    for end, impairment in ((wire.far, wire.condition.up), (wire.near, wire.condition.down)):
        if impairment.spreads:
            yield _single_packets(wire, end)
    emulator = emulator_of(view.layout, wire)
    if emulator is Emulator.NETEM:
        for end, way, impairment in _exits(wire):
            yield from _qdiscs(wire, end, way, impairment)
    elif emulator is Emulator.USERSPACE and not wire.lost:
        yield _relay(wire)


def _exits(wire: WireLayout) -> Iterator[tuple[VethEnd, str, Impairment]]:
    """Return the end by which each direction leaves the wire, which is where netem acts on it."""
    yield wire.near, "up", wire.condition.up
    yield wire.far, "down", wire.condition.down


def _single_packets(wire: WireLayout, end: VethEnd) -> tuple[Key, Resource]:
    """Limit GSO to one packet where packets enter the wire, because the wire treats packets singly."""
    why = f"send packets singly into {wire.title}"
    return ("gso", end.peer_ns, end.peer), Resource(
        (Ip(end.peer_ns, ip.link_gso(end.peer, 1), why=why, owner=wire.owner),),
        (Ip(end.peer_ns, ip.link_gso(end.peer, _ANY_SEGMENTS), why=why, owner=wire.owner, tolerate=GONE),),
        Phase.ACT,
        within=(end_key(end),),
    )


def _qdiscs(wire: WireLayout, end: VethEnd, way: str, impairment: Impairment) -> Resources:
    if not impairment:
        return
    dev = end.name
    shape, rate = shape_of(impairment, wire.mtu), impairment.rate_kbit
    netem = tc.Netem(impairment, shape.limit)
    tbf = tc.Tbf(rate, shape.burst, shape.buffer) if rate else None
    why, ns, key = f"condition {wire.title}, {way}", wire.ns, ("qdisc", wire.ns, dev)
    check = CheckQdiscs(
        ns, {dev: (netem, tbf)}, why="see that the kernel took the conditions", owner=wire.owner
    )
    yield (
        key,
        Resource(
            (Tc(ns, tc.netem_replace(dev, netem), why=why, owner=wire.owner),),
            (Tc(ns, tc.root_del(dev), why=why, owner=wire.owner, tolerate=GONE),),
            Phase.ACT,
            within=(end_key(end),),
            identity=netem,
            check=check,
        ),
    )
    if tbf:
        yield (
            ("rate", ns, dev),
            Resource(
                (Tc(ns, tc.tbf_replace(dev, tbf), why=why, owner=wire.owner),),
                (Tc(ns, tc.child_del(dev), why=why, owner=wire.owner, tolerate=GONE),),
                Phase.ACT,
                within=(key,),
                identity=tbf,
                check=check,
            ),
        )


def _relay(wire: WireLayout) -> tuple[Key, Resource]:
    """Return the process that carries packets where the kernel does not."""
    why, name = f"condition {wire.title}", relay_name(wire)
    title = f"the relay of {wire.title}"
    relay = Service(
        wire.ns, name, RELAY, _relay_args(wire), kind="relay", key=wire.key, title=title, shares=True
    )
    return ("service", wire.ns, name), Resource(
        (StartService(relay, why=why, owner=wire.owner),),
        (EndService(relay, why=why, owner=wire.owner),),
        Phase.ACT,
        within=(end_key(wire.far), end_key(wire.near)),
        process=True,
    )


def _relay_args(wire: WireLayout) -> tuple[str, ...]:
    seed = str(zlib.crc32(wire.owner.encode("utf-8", "surrogateescape")))
    words = ["--far", wire.far.name, "--near", wire.near.name, "--seed", seed]
    for way, impairment in wire.condition.ways:
        words += [f"--{way}", *_relay_words(impairment, wire.mtu)]
    return tuple(words)


def _relay_words(impairment: Impairment, mtu: int | None) -> Iterator[str]:
    if not impairment:
        return
    shape = shape_of(impairment, mtu)
    for key, value in impairment.set_values().items():
        if key not in ("trace", "buffer_kb"):
            yield f"{key}={value:.10g}"
    if impairment.trace:
        yield f"trace={impairment.trace.path}"
    if shape.buffer:
        yield f"burst_bytes={shape.burst}"
        yield f"buffer_bytes={shape.buffer}"
    yield f"limit={shape.limit}"
