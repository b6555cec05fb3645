"""What acts on the packets of wires: qdiscs of the kernel, or relays; and packets sent singly into them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from patchbay.layout.layout import Layout, WireLayout
from patchbay.model.link import Emulator, Impairment
from patchbay.model.names import IfName, NsName
from patchbay.plan.aspects import GONE, Aspect, Aspects
from patchbay.plan.shape import shape_of
from patchbay.tools import ip, tc
from patchbay.tools.commands import CheckQdiscs, Command, EndHelper, Helper, Ip, Tc

__all__ = ["acting", "checks", "emulator_of", "relay_name", "relays"]

RELAY = "patchbay.emulator.relay"

_ANY_SEGMENTS = 65535


def emulator_of(layout: Layout, wire: WireLayout) -> Emulator | None:
    """What acts on a wire's packets; None where nothing has to. Only the relay can replay a trace."""
    if not wire.condition:
        return None
    if any(impairment.trace for _, impairment in wire.condition.ways):
        return Emulator.USERSPACE
    return Emulator.USERSPACE if layout.emulator is Emulator.USERSPACE else Emulator.NETEM


def relay_name(wire: WireLayout) -> str:
    """What the command line of the wire's relay begins with."""
    return f"{RELAY} --far {wire.far.name}"


def acting(layout: Layout) -> Aspects:
    """Segments and qdiscs, all of one tool together, so that each namespace needs few processes."""
    return {**_segments(layout), **_qdiscs(layout)}


def _segments(layout: Layout) -> Aspects:
    """Where packets count singly, each must be one: at the peers, where they enter the wire."""
    found: Aspects = {}
    for wire in layout.wires.values():
        for end, impairment in ((wire.far, wire.condition.up), (wire.near, wire.condition.down)):
            if impairment.spreads:
                why = f"send packets singly into {wire.title}"
                found["gso", end.peer_ns, end.peer] = Aspect(
                    Ip(end.peer_ns, ip.link_gso(end.peer, 1), why, wire.owner, slot=f"gso {end.peer}"),
                    Ip(
                        end.peer_ns,
                        ip.link_gso(end.peer, _ANY_SEGMENTS),
                        why,
                        wire.owner,
                        GONE,
                        f"gso {end.peer}",
                    ),
                )
    return found


def _exits(wire: WireLayout) -> Iterator[tuple[IfName, str, Impairment]]:
    """The end by which each direction leaves the wire."""
    yield wire.near.name, "up", wire.condition.up
    yield wire.far.name, "down", wire.condition.down


def _wanted(wire: WireLayout, impairment: Impairment) -> tuple[tc.Netem, tc.Tbf | None]:
    shape = shape_of(impairment, wire.mtu)
    rate = impairment.rate_kbit
    return tc.Netem(impairment, shape.limit), tc.Tbf(rate, shape.burst, shape.buffer) if rate else None


def _by_netem(layout: Layout) -> Iterator[tuple[WireLayout, IfName, str, Impairment]]:
    for wire in layout.wires.values():
        if emulator_of(layout, wire) is Emulator.NETEM:
            yield from ((wire, dev, way, impairment) for dev, way, impairment in _exits(wire) if impairment)


def _qdiscs(layout: Layout) -> Aspects:
    found: Aspects = {}
    for wire, dev, way, impairment in _by_netem(layout):
        netem, tbf = _wanted(wire, impairment)
        why, ns, slot = f"condition {wire.title}, {way}", wire.ns, f"qdisc {dev}"
        found["qdisc", ns, dev] = Aspect(
            Tc(ns, tc.netem_replace(dev, netem), why, wire.owner, slot=slot),
            Tc(ns, tc.root_del(dev), why, wire.owner, GONE, slot),
        )
        if tbf:
            found["rate", ns, dev] = Aspect(
                Tc(ns, tc.tbf_replace(dev, tbf), why, wire.owner, slot=f"{slot} rate"),
                Tc(ns, tc.child_del(dev), why, wire.owner, GONE, f"{slot} rate"),
            )
    return found


def checks(old: Layout, new: Layout) -> Iterator[Command]:
    """What reads the qdiscs back that are not as they were."""
    before = {(wire.ns, dev): _wanted(wire, it) for wire, dev, _, it in _by_netem(old)}
    changed: dict[NsName, dict[IfName, tuple[tc.Netem, tc.Tbf | None]]] = {}
    owners = {}
    for wire, dev, _, impairment in _by_netem(new):
        wanted = _wanted(wire, impairment)
        if before.get((wire.ns, dev)) != wanted:
            changed.setdefault(wire.ns, {})[dev] = wanted
            owners[wire.ns] = wire.owner
    for ns, devices in changed.items():
        yield CheckQdiscs(ns, devices, "see that the kernel took the conditions", owners[ns])


def relays(layout: Layout) -> Aspects:
    """The processes that carry packets where the kernel does not."""
    found: Aspects = {}
    for wire in layout.wires.values():
        if emulator_of(layout, wire) is Emulator.USERSPACE and not wire.lost:
            why, name = f"condition {wire.title}", relay_name(wire)
            found["relay", wire.ns, name] = Aspect(
                Helper(wire.ns, name, RELAY, _relay_args(wire), why, wire.owner),
                EndHelper(wire.ns, name, why, wire.owner),
            )
    return found


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
    for key, value in impairment.said().items():
        if key not in ("trace", "buffer_kb"):
            yield f"{key}={value:.10g}"
    if impairment.trace:
        yield f"trace={impairment.trace.path}"
    if shape.buffer:
        yield f"burst_bytes={shape.burst}"
        yield f"buffer_bytes={shape.buffer}"
    yield f"limit={shape.limit}"
