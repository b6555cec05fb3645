"""The arguments of `tc` commands (iproute2), and what `tc -j qdisc` must show after them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from patchbay.model.link import Impairment
from patchbay.model.names import IfName

__all__ = ["Netem", "Tbf", "child_del", "differences", "netem_replace", "root_del", "tbf_replace"]

Args = tuple[str, ...]

NETEM_HANDLE, TBF_HANDLE = "1:", "10:"
# With a rate netem lets no packet overtake the one before it, whatever its jitter (netem_enqueue in
# net/sched/sch_netem.c); at this one, sending a frame takes 0.1 µs.
IN_ORDER_RATE = "100gbit"
_IN_ORDER_BYTES = 100e9 / 8


@frozen
class Netem:
    """The root qdisc of a direction, as it must be."""

    impairment: Impairment
    limit: int


@frozen
class Tbf:
    """The token bucket below it: `rate` in kbit/s, `burst` and `buffer` in bytes."""

    rate: float
    burst: int
    buffer: int


def _number(value: float | None) -> str:
    return f"{value or 0:.10g}"


def netem_replace(dev: IfName, netem: Netem) -> Args:
    """Set every value, because `replace` keeps values that are not given (netem_change in sch_netem.c).

    The delay is never zero: netem takes a delayed packet out of its sender's account (skb_orphan_partial),
    as a real wire does; otherwise the sender's socket would feel the queue of the bucket below.
    """
    it = netem.impairment
    rate = IN_ORDER_RATE if it.jitter_ms else "0bit"
    delay = f"{_number(it.latency_ms)}ms" if it.latency_ms else "1us"
    return (
        "qdisc", "replace", "dev", dev, "root", "handle", NETEM_HANDLE, "netem", "limit", str(netem.limit),
        "delay", delay, f"{_number(it.jitter_ms)}ms", "loss", "random", f"{_number(it.loss_pct)}%",
        "duplicate", f"{_number(it.duplicate_pct)}%", "reorder", f"{_number(it.reorder_pct)}%",
        "corrupt", f"{_number(it.corrupt_pct)}%", "rate", rate,
    )  # fmt: skip


def tbf_replace(dev: IfName, tbf: Tbf) -> Args:
    """Below netem, so that what is late already waits in a buffer that is counted in bytes."""
    return (
        "qdisc", "replace", "dev", dev, "parent", f"{NETEM_HANDLE}1", "handle", TBF_HANDLE, "tbf",
        "rate", f"{round(tbf.rate * 1000)}bit", "burst", str(tbf.burst), "limit", str(tbf.buffer),
    )  # fmt: skip


def child_del(dev: IfName) -> Args:
    return ("qdisc", "del", "dev", dev, "parent", f"{NETEM_HANDLE}1")


def root_del(dev: IfName) -> Args:
    return ("qdisc", "del", "dev", dev, "root")


def differences(wanted: Mapping[IfName, tuple[Netem, Tbf | None]], shown: str) -> list[str]:
    """Return what `tc -j qdisc show` shows that is not what was asked for."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for qdisc in json.loads(shown or "[]"):
        found[qdisc.get("dev", ""), qdisc["kind"]] = qdisc.get("options", {})
    return [
        f"{dev}: {text}"
        for dev, (netem, tbf) in wanted.items()
        for text in (*_netem(netem, found.get((dev, "netem"))), *_tbf(tbf, found.get((dev, "tbf"))))
    ]


def _netem(wanted: Netem, shown: dict[str, Any] | None) -> Iterator[str]:
    if shown is None:
        yield "asked for netem; the kernel has none"
        return
    it, delay = wanted.impairment, shown.get("delay", {})
    values = {
        "limit": (wanted.limit, shown.get("limit")),
        # Seconds; 1 µs means none.
        "delay": (it.latency_ms / 1000 if it.latency_ms else 1e-6, delay.get("delay", 0)),
        "jitter": ((it.jitter_ms or 0) / 1000, delay.get("jitter", 0)),
        "loss": ((it.loss_pct or 0) / 100, shown.get("loss-random", {}).get("loss", 0)),
        "duplicate": ((it.duplicate_pct or 0) / 100, shown.get("duplicate", {}).get("duplicate", 0)),
        "reorder": ((it.reorder_pct or 0) / 100, shown.get("reorder", {}).get("reorder", 0)),
        "corrupt": ((it.corrupt_pct or 0) / 100, shown.get("corrupt", {}).get("corrupt", 0)),
        "rate": (_IN_ORDER_BYTES if it.jitter_ms else 0, shown.get("rate", {}).get("rate", 0)),
    }
    yield from _unlike(values)


def _tbf(wanted: Tbf | None, shown: dict[str, Any] | None) -> Iterator[str]:
    if wanted is None:
        if shown is not None:
            yield "asked for no rate; the kernel has a token bucket"
        return
    if shown is None:
        yield "asked for a rate; the kernel has no token bucket"
        return
    rate = wanted.rate * 1000 / 8
    # tc shows the limit as the µs that a buffer takes beyond a full bucket (tbf_print_opt in tc/q_tbf.c).
    late = shown.get("lat")
    limit = shown.get("limit") if late is None else round(late / 1e6 * rate + wanted.burst)
    values: dict[str, tuple[float, Any]] = {
        "rate": (rate, shown.get("rate")),
        "burst": (wanted.burst, shown.get("burst")),
        "limit": (wanted.buffer, limit),
    }
    yield from _unlike(values)


def _unlike(values: Mapping[str, tuple[float, Any]]) -> Iterator[str]:
    """Compare within 1 %, or 1 µs: the kernel counts in ticks of 64 ns, and tc cuts off parts of a µs."""
    for name, (asked, shown) in values.items():
        if not isinstance(shown, int | float) or abs(shown - asked) > max(abs(asked) * 0.01, 1.5e-6):
            yield f"asked for {name} {asked:g}; the kernel has {shown!r}"
