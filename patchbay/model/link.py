"""The condition of a link: what each direction does to packets, in a user's words and resolved."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from math import inf
from typing import Any, Self

import attrs
from attrs import evolve, field, frozen

from patchbay.errors import Problem, SpecError

__all__ = [
    "LINK_PRESETS",
    "PERFECT",
    "Condition",
    "Direction",
    "Emulator",
    "Impairment",
    "LinkCondition",
    "LinkPreset",
    "RegionLink",
    "Trace",
    "combination_problems",
    "merged",
]


class Emulator(StrEnum):
    """The emulator of links, which delays and drops packets: the kernel's netem, or a relay in user space."""

    AUTO = "auto"
    NETEM = "netem"
    USERSPACE = "userspace"


class Direction(StrEnum):
    """`up` is away from the device, towards its router; of a region link, from the first to the second."""

    UP = "up"
    DOWN = "down"
    BOTH = "both"

    @property
    def ways(self) -> tuple[str, ...]:
        return ("up", "down") if self is Direction.BOTH else (self.value,)


class LinkPreset(StrEnum):
    """A kind of link, named after where it is found."""

    LAN = "lan"
    WIFI = "wifi"
    WIFI_BAD = "wifi-bad"
    MOBILE_4G = "mobile-4g"
    MOBILE = "mobile"
    MOBILE_3G = "mobile-3g"
    SATELLITE = "satellite"
    SATELLITE_GEO = "satellite-geo"


@frozen
class Trace:
    """A packet-delivery trace (mahimahi): its file, and the rate that it has on average, in kbit/s."""

    path: str
    mean_kbit: float


# What is accepted: (least, most, unit). A minute is beyond every link on Earth, and netem counts
# delays in 32 bits of ticks, and jitter in 31 bits of nanoseconds (netem_change in sch_netem.c cuts
# what is more in silence); 12 kbit/s is one packet of 1500 bytes a second.
_RANGES: dict[str, tuple[float, float, str]] = {
    "latency_ms": (0, 60_000, "ms"),
    "jitter_ms": (0, 2_000, "ms"),
    "loss_pct": (0, 100, "%"),
    "reorder_pct": (0, 100, "%"),
    "duplicate_pct": (0, 100, "%"),
    "corrupt_pct": (0, 100, "%"),
    "rate_kbit": (12, 100_000_000, "kbit/s, or 0 for no limit; 12 kbit/s is one packet a second"),
    "buffer_kb": (2, 1_000_000, "kB, or 0 for the default"),
}
_ALSO: dict[str, tuple[float, ...]] = {"rate_kbit": (inf,), "buffer_kb": (0,)}


def _range_problems(impairment: Impairment) -> Iterator[tuple[str, str]]:
    """Yield (key, problem) for every value that no link can have."""
    for key, (least, most, unit) in _RANGES.items():
        value = getattr(impairment, key)
        if value is None or value in _ALSO.get(key, ()):
            continue
        accepted = f"{least:,} to {most:,}".replace(",", " ")
        if type(value) not in (int, float):
            yield key, f"found {value!r}; accepted: {accepted} {unit}"
        elif not least <= value <= most:
            yield key, f"found {value:g}; accepted: {accepted} {unit}"
    if impairment.trace is not None and impairment.rate_kbit not in (None, inf):
        yield "trace", "a direction has a rate or a trace, not both"


def _no_limit(rate: float | None) -> float | None:
    """Return the one value for no limit, which files have as 0 because JSON has no infinity."""
    return inf if rate == 0 else rate


@frozen
class Impairment:
    """The impairment of packets in one direction of a link; None leaves a value open.

    `latency_ms`, one way, plus or minus `jitter_ms` (uniform; packets keep their order). `loss_pct`,
    `duplicate_pct`, `corrupt_pct` are of packets, independent of each other; `reorder_pct` of them are not
    delayed, and so overtake. `rate_kbit` counts whole Ethernet frames; behind it is a buffer of `buffer_kb`
    kilobytes of 1000 bytes (default: what the rate sends in 100 ms, or in `latency_ms` where that is
    more). `trace` is a packet-delivery trace instead of a rate. Raises `SpecError` for what no link can have.
    """

    latency_ms: float | None = None
    jitter_ms: float | None = None
    loss_pct: float | None = None
    rate_kbit: float | None = field(default=None, converter=_no_limit)
    reorder_pct: float | None = None
    duplicate_pct: float | None = None
    corrupt_pct: float | None = None
    buffer_kb: float | None = None
    trace: Trace | None = None

    def __attrs_post_init__(self) -> None:
        if problems := [Problem(key, text) for key, text in _range_problems(self)]:
            raise SpecError(problems)

    def __bool__(self) -> bool:
        return self != type(self)()

    def set_values(self) -> dict[str, Any]:
        """Return the values that are not None, by name."""
        return attrs.asdict(self, recurse=False, filter=lambda _, value: value is not None)

    def applied_to(self, base: Impairment) -> Impairment:
        """Return `base` with the values of this one. Zero, and an infinite rate, are no impairment."""
        values, result = self.set_values(), self._laid_on(base)
        if not (result.trace or result.rate_kbit not in (None, inf) or values.get("buffer_kb")):
            result = evolve(result, buffer_kb=None)  # what it was the buffer of is gone
        return evolve(
            result, **{key: None for key, value in result.set_values().items() if value in (0, inf)}
        )

    def _laid_on(self, base: Impairment) -> Impairment:
        """Return `base` with the values of this one. A rate replaces a trace, and a trace a rate."""
        values = self.set_values()
        if "trace" in values:
            base = evolve(base, rate_kbit=None)
        elif "rate_kbit" in values:
            base = evolve(base, trace=None)
        return evolve(base, **values)

    @property
    def spreads(self) -> bool:
        """Return True if it treats packets singly, so that GSO may not put several in one."""
        return bool(evolve(self, latency_ms=None))


@frozen(kw_only=True)
class LinkCondition(Impairment):
    """The condition of a link: of both directions, and of one where `up` or `down` says otherwise.

    What is None stays as it is where the condition of a live link is changed, and is no impairment on
    a new link. Presets (`"wifi"`, `LinkPreset.WIFI`) say everything.
    """

    up: Impairment | None = None
    down: Impairment | None = None

    def with_all_set(self) -> LinkCondition:
        """Return the condition where what is None is no impairment instead."""
        return evolve(LINK_PRESETS[LinkPreset.LAN], **self.set_values())

    def of(self, way: str) -> Impairment:
        """Return the values for direction "up" or "down"."""
        common = Impairment(**{f.name: getattr(self, f.name) for f in attrs.fields(Impairment)})
        own: Impairment | None = getattr(self, way)
        return common if own is None else own._laid_on(common)


@frozen(kw_only=True)
class RegionLink(LinkCondition):
    """The condition of the way between two regions; `up` is from the first to the second."""

    @classmethod
    def good(cls, ms: float) -> Self:
        """Return a link with a latency of `ms` one way, and no other impairment."""
        return cls(latency_ms=ms)

    @classmethod
    def degraded(cls, ms: float) -> Self:
        """Return a congested transit: `ms` one way, a tenth of that as jitter, and 1 % loss."""
        return cls(latency_ms=ms, jitter_ms=ms / 10, loss_pct=1)


@frozen
class Condition:
    """A link's condition with nothing left open: None is no impairment."""

    up: Impairment = Impairment()
    down: Impairment = Impairment()

    def __bool__(self) -> bool:
        return bool(self.up or self.down)

    @property
    def ways(self) -> tuple[tuple[str, Impairment], ...]:
        return ("up", self.up), ("down", self.down)


PERFECT = Condition()


def merged(old: Condition, new: LinkCondition, direction: Direction = Direction.BOTH) -> Condition:
    """Return `old` with the values that `new` sets for some directions."""
    return evolve(old, **{way: new.of(way).applied_to(getattr(old, way)) for way in direction.ways})


def _preset(latency: float, jitter: float, loss: float, rate: float = inf) -> LinkCondition:
    return LinkCondition(
        latency_ms=latency,
        jitter_ms=jitter,
        loss_pct=loss,
        rate_kbit=rate,
        reorder_pct=0,
        duplicate_pct=0,
        corrupt_pct=0,
        buffer_kb=0,
    )


# The table of docs/behaviour.md: each direction, one way.
LINK_PRESETS = {
    LinkPreset.LAN: _preset(0, 0, 0),
    LinkPreset.WIFI: _preset(5, 2, 0.1),
    LinkPreset.WIFI_BAD: _preset(40, 15, 2, 20_000),
    LinkPreset.MOBILE_4G: _preset(25, 8, 0.5),
    LinkPreset.MOBILE: _preset(25, 8, 0.5),
    LinkPreset.MOBILE_3G: _preset(100, 30, 2, 2_000),
    LinkPreset.SATELLITE: _preset(40, 7, 1),
    LinkPreset.SATELLITE_GEO: _preset(300, 20, 0.5, 25_000),
}


def combination_problems(impairment: Impairment) -> Iterator[tuple[str, str]]:
    """Yield (key, problem) for values of a resolved direction that contradict each other."""
    latency, jitter = impairment.latency_ms or 0, impairment.jitter_ms or 0
    if jitter > latency and not impairment.reorder_pct:
        yield (
            "jitter_ms",
            f"found {jitter:g}, more than the latency; accepted: 0 to latency_ms ({latency:g}) ms",
        )
    if impairment.reorder_pct and not latency:
        yield (
            "reorder_pct",
            "without latency there is nothing to overtake; accepted: together with latency_ms",
        )
    if impairment.buffer_kb and not (impairment.rate_kbit or impairment.trace):
        yield "buffer_kb", "a buffer is filled only where there is a rate; accepted: together with rate_kbit"
