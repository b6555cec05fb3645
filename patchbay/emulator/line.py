"""One direction of a link: what becomes of a packet, and when it leaves.

Pure: time and chance are arguments. Times are nanoseconds. In the order of the stages: loss,
duplicates, corruption, the delay line, the bottleneck. The last two keep the order; a packet that
reorder picks skips the delay line alone, as with netem.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from operator import itemgetter
from random import Random

from patchbay.emulator.bottleneck import Bottleneck, TokenBucket, TraceSchedule
from patchbay.emulator.conditions import Conditions
from patchbay.emulator.frames import VNET, corrupt

__all__ = ["Line"]

MS = 1e6


class Line:
    """Packets enter by `admit` in the order of their arrival, and leave by `due`."""

    def __init__(self, conditions: Conditions, chance: Random, now: float) -> None:
        self.lost = self.dropped = self.duplicated = self.reordered = self.corrupted = 0
        self._chance = chance
        self._random = chance.random
        self._delayed: deque[tuple[float, bytes]] = deque()
        self._leaving: deque[tuple[float, bytes]] = deque()
        self._last_exit = 0.0
        self._bottleneck: Bottleneck | None = None
        self._conditions = Conditions()
        self.change(conditions, now)

    def change(self, conditions: Conditions, now: float) -> None:
        """Other conditions for what comes. What is queued keeps the time at which it leaves.

        What comes may overtake it, as with netem: else one old packet would hold up all that follow
        after a long delay has become a short one.
        """
        self._last_exit = 0.0
        if conditions.narrow != self._conditions.narrow:
            self._advance(float("inf"))
            self._bottleneck = _make_bottleneck(conditions, now) if conditions.shaped else None
        self._conditions = conditions
        self._latency = conditions.latency_ms * MS
        self._jitter = conditions.jitter_ms * MS
        self._loss = conditions.loss_pct / 100
        self._duplicate = conditions.duplicate_pct / 100
        self._corrupt = conditions.corrupt_pct / 100
        self._reorder = conditions.reorder_pct / 100 if self._latency or self._jitter else 0.0
        self._limit = conditions.limit

    @property
    def queued(self) -> int:
        return len(self._delayed) + len(self._leaving)

    @property
    def transparent(self) -> bool:
        """Return True if a packet that came now would leave at once, unchanged."""
        return self._conditions.transparent and not self._leaving and not self._delayed

    def admit(self, frame: memoryview | bytes, arrival: float) -> None:
        """Take a packet in. `frame` is copied, unless it is bytes."""
        if self._loss and self._random() < self._loss:
            self.lost += 1
            return
        data = bytes(frame)
        self._enter(data, arrival)
        if self._duplicate and self._random() < self._duplicate:
            self.duplicated += 1
            self._enter(data, arrival)

    def _enter(self, data: bytes, arrival: float) -> None:
        if self._corrupt and self._random() < self._corrupt:
            self.corrupted += 1
            damaged = corrupt(data, self._chance)
            if damaged is None:
                return
            data = damaged
        delayed = self._delayed
        if delayed and delayed[0][0] <= arrival:
            self._advance(arrival)
        if self._reorder and self._random() < self._reorder:
            self.reordered += 1
            self._pass(arrival, data)
            return
        if len(delayed) >= self._limit:
            self.dropped += 1
            return
        leaves = arrival + self._latency
        if self._jitter:
            leaves = max(arrival, leaves + self._jitter * (2 * self._random() - 1))
        self._last_exit = leaves = max(leaves, self._last_exit)
        if delayed and leaves < delayed[-1][0]:  # of the time before a change
            delayed.insert(bisect_right(delayed, leaves, key=itemgetter(0)), (leaves, data))
        else:
            delayed.append((leaves, data))

    def _advance(self, now: float) -> None:
        """Move what has left the delay line on to the bottleneck."""
        delayed = self._delayed
        while delayed and delayed[0][0] <= now:
            self._pass(*delayed.popleft())

    def _pass(self, entry: float, data: bytes) -> None:
        departure: float | None = entry
        if self._bottleneck is not None:
            departure = self._bottleneck.departure(entry, len(data) - VNET)
        if departure is None:
            self.dropped += 1
            return
        leaving = self._leaving
        if leaving and departure < leaving[-1][0]:
            departure = leaving[-1][0]
        leaving.append((departure, data))

    def due(self, now: float, most: int = 64) -> list[bytes]:
        """Return frames that have left by now, `most` at a time."""
        found: list[bytes] = []
        queue = self._delayed
        if self._bottleneck is not None or self._leaving:
            self._advance(now)
            queue = self._leaving
        while queue and queue[0][0] <= now and len(found) < most:
            found.append(queue.popleft()[1])
        return found

    def next_time(self) -> float | None:
        """When to ask again what is due.

        While something waits to leave, what comes out of the delay line meanwhile can leave only behind it.
        """
        if self._leaving:
            return self._leaving[0][0]
        return self._delayed[0][0] if self._delayed else None

    def flush(self, now: float) -> None:
        """Lose all that is on the way."""
        self._delayed.clear()
        self._leaving.clear()
        self._last_exit = 0.0
        if self._bottleneck is not None:
            self._bottleneck.flush(now)


def _make_bottleneck(conditions: Conditions, now: float) -> Bottleneck:
    if conditions.trace:
        return Bottleneck(TraceSchedule(conditions.trace, now), conditions.buffer_bytes)
    return Bottleneck(TokenBucket(conditions.rate_kbit, conditions.burst_bytes), conditions.buffer_bytes)
