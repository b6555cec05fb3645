"""Judge delays, rates and counts so that noise neither fails a right link nor passes a wrong one.

Noise only adds delay and takes throughput away. So each judge looks at two sides:

- `excess()` describes samples that noise cannot explain: a packet earlier than asked for, more bytes than the
  rate lets through, more arrivals than the loss allows. One such sample is enough to fail.
- `lack()` describes what no sample has shown yet: a packet as early, a stretch as fast as asked for. Noise
  may be the reason, so `satisfy` goes on sampling until there is no lack, or `DEADLINE` has passed.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio
from attrs import define, field

from tests.patience import DEADLINE

__all__ = ["All", "Best", "Count", "Delay", "Judge", "Rate", "Spread", "binomial", "satisfy"]

# ms. Clocks are read apart from the packets' own moments.
_TICK, _LATE = 0.05, 1.0
# What the emulators of a slow machine take for themselves may look like delay: less than the 2 ms to be seen.
_SLACK = 1.8
_FRAME = 1514
# tests/mutants.py knows that the machine is idle, and that nearly all of its tests wait in vain.
_PATIENCE = float(os.environ.get("PATCHBAY_PATIENCE", DEADLINE))


def _some(samples: Sequence[object]) -> str:
    """Show enough of them to see what they are like."""
    shown = ", ".join(f"{each:.3g}" if isinstance(each, float) else str(each) for each in samples[:40])
    return f"[{shown}, ... {len(samples)} in all]" if len(samples) > 40 else f"[{shown}]"


class Judge(Protocol):
    def excess(self) -> str:
        """Describe the samples that no noise explains; "" if there are none."""

    def lack(self) -> str:
        """Describe what the best samples do not show yet; "" if nothing is missing."""


async def satisfy(judge: Judge, sample: Callable[[], Awaitable[None]], what: object = "") -> None:
    """Sample until the judge lacks nothing. AssertionError for any excess, or where the lack stays."""
    give_up = trio.current_time() + _PATIENCE
    while True:
        await sample()
        assert not (excess := judge.excess()), f"{what}: {excess}\n{judge}"
        if not (lack := judge.lack()):
            return
        assert trio.current_time() < give_up, f"{what}: still after {_PATIENCE:g} s: {lack}\n{judge}"


@define
class All:
    """Several judges whose samples are taken together."""

    judges: Sequence[Judge]

    def excess(self) -> str:
        return "; ".join(filter(None, (judge.excess() for judge in self.judges)))

    def lack(self) -> str:
        return "; ".join(filter(None, (judge.lack() for judge in self.judges)))


@define
class Best:
    """Values that noise only makes larger: none is below `floor`, and the best is at most `ceiling`."""

    floor: float
    ceiling: float
    unit: str
    values: list[float] = field(factory=list, repr=_some)

    def excess(self) -> str:
        low = [value for value in self.values if value < self.floor]
        return f"less than {self.floor:g} {self.unit}: {low}" if low else ""

    def lack(self) -> str:
        best = min(self.values, default=math.inf)
        return (
            f"{best:g} {self.unit} at the best, accepted up to {self.ceiling:g}"
            if best > self.ceiling
            else ""
        )


@define
class Delay:
    """Times over a path that delays by `asked`, and over one beside it that does not (`control`), in ms."""

    asked: float
    times: list[float] = field(factory=list, repr=_some)
    control: list[float] = field(factory=list, repr=_some)

    def excess(self) -> str:
        early = [time for time in self.times if time < self.asked - _TICK]
        return f"earlier than {self.asked:g} ms: {early}" if early else ""

    def lack(self) -> str:
        if not self.times or not self.control:
            return "no packet has come back"
        added = min(self.times) - min(self.control)
        most = self.asked + _SLACK
        return f"{added:.2f} ms added at the least, accepted up to {most:g}" if added > most else ""


@define
class Rate:
    """Bytes that came through a token bucket of `asked` Mbit/s, by the time since the first was sent.

    After a pause the bucket lets two full frames through at once, or what the rate gives in 2 ms
    (docs/behaviour.md). As all is counted from the beginning, a receiver that is held up and then gets much
    at once sees no more than it would have seen without. A bottleneck that is held up itself has lost that
    time for good, so the stretch is short: long enough for 7 % to show beside the bucket.
    """

    asked: float
    delay: tuple[float, float] = (0.0, 0.0)
    """Least and most seconds that the link delays each packet."""
    fastest: tuple[float, float] = (0.0, 0.0)
    """The largest share of the rate, and after how many seconds."""
    too_much: tuple[float, int] | None = None
    watched: float = 0.0

    @property
    def _bucket(self) -> float:
        return max(2 * _FRAME, self.asked * 1e6 / 8 * 0.002)

    @property
    def stretch(self) -> float:
        """Seconds that a transfer lasts for 7 % too much to be seen; half of it shows 7 % too little."""
        return self.delay[1] + 50 * self._bucket / (self.asked * 1e6 / 8)

    def arrived(self, seconds: float, total: int) -> None:
        """Note that `total` bytes have arrived, `seconds` after the first was sent."""
        most, least = (self.asked * 1e6 / 8 * (seconds - delay) for delay in self.delay)
        if total > most * 1.02 + self._bucket + 3 * _FRAME:
            self.too_much = self.too_much or (seconds, total)
        self.watched = max(self.watched, seconds)
        if seconds >= (self.delay[1] + self.stretch) / 2:
            self.fastest = max(self.fastest, ((total - self._bucket) / least, seconds))

    def excess(self) -> str:
        if not self.too_much:
            return ""
        seconds, total = self.too_much
        return f"{total} bytes in {seconds:.3f} s are {total * 8e-6 / seconds:.2f} Mbit/s of {self.asked:g}"

    def lack(self) -> str:
        # A rate that is 7 % too low never gives more than 93 % of what was due, whatever the machine does.
        share, seconds = self.fastest
        if self.watched < self.stretch:
            return f"watched for {self.watched:.2f} of {self.stretch:.2f} s"
        return f"at most {share:.1%} of {self.asked:g} Mbit/s (in {seconds:.2f} s)" if share < 0.94 else ""


@define
class Count:
    """How many of those sent came, each with the same `probability`; what noise holds up may not be seen."""

    probability: float
    found: list[tuple[int, int]] = field(factory=list)
    """(sent, came) of each attempt."""

    def excess(self) -> str:
        many = [(sent, came) for sent, came in self.found if came > binomial(sent, self.probability)[1]]
        return f"of (sent, came) {many} more came than {self.probability:.2%}" if many else ""

    def lack(self) -> str:
        enough = any(came >= binomial(sent, self.probability)[0] for sent, came in self.found)
        return "" if enough else f"of (sent, came) {self.found} less than {self.probability:.2%} came"


@define
class Spread:
    """One-way delays that are even between `low` and `high`, in ms.

    Each has another beside it, of a packet that was sent at the same moment over a path of steady delay.
    Where that packet is late, the machine was busy, and the sample says nothing about the shape.
    """

    low: float
    high: float
    least_samples: int = 200
    pairs: list[tuple[float, float]] = field(factory=list, repr=_some)
    """(time over the path, time over the steady one)"""

    @property
    def quiet(self) -> list[float]:
        steady = min((each for _, each in self.pairs), default=0.0)
        return [time for time, each in self.pairs if each <= steady + 0.5]

    def excess(self) -> str:
        early = [time for time, _ in self.pairs if time < self.low - _TICK]
        return f"earlier than {self.low:g} ms: {_some(early)}" if early else ""

    def lack(self) -> str:
        quiet = self.quiet
        # The machine may have become busy while the packet was under way.
        punctual = [time for time in quiet if time <= self.high + _LATE]
        if len(punctual) < self.least_samples:
            return f"{len(punctual)} punctual samples of {len(quiet)} while the machine was quiet"
        if len(punctual) < 0.8 * len(quiet):
            return f"{len(quiet) - len(punctual)} of {len(quiet)} later than {self.high:g} ms"
        return self._unlike(punctual)

    def _unlike(self, times: Sequence[float]) -> str:
        middle, deviation = (self.low + self.high) / 2, (self.high - self.low) / math.sqrt(12)
        mean, found = statistics.fmean(times), statistics.stdev(times)
        if abs(mean - middle) > 4.5 * deviation / math.sqrt(len(times)) + _LATE:
            return f"mean {mean:.2f} ms, asked for {middle:g}"
        # Of 200 even samples the deviation is found within 14 %, but for one time in 150,000.
        if abs(found - deviation) > 0.2 * deviation + _LATE / 4:
            return f"standard deviation {found:.2f} ms, asked for {deviation:.2f}"
        # That none of 100 is in the lowest tenth is as rare.
        earliest = self.low + (self.high - self.low) / 10 + _LATE
        return f"none before {earliest:g} ms" if min(times) > earliest else ""


def binomial(sent: int, probability: float, *, sigmas: float = 4.5) -> tuple[float, float]:
    """Return between which numbers all but one in 150,000 outcomes lie."""
    if probability in (0, 1):
        return sent * probability, sent * probability
    spread = sigmas * math.sqrt(sent * probability * (1 - probability)) + 1
    return sent * probability - spread, sent * probability + spread
