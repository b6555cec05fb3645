"""The narrow place of a link: when a packet has passed it. Pure; times are nanoseconds as floats."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Any, Protocol

__all__ = ["Bottleneck", "Schedule", "TokenBucket", "TraceSchedule"]

MS = 1e6
# What one opportunity of a mahimahi trace delivers: a full Ethernet frame.
OPPORTUNITY = 1514


class Schedule(Protocol):
    """The speed of a bottleneck. `plan` starts from `state`; the caller that accepts a plan sets `state`."""

    state: Any

    def plan(self, entry: float, size: int) -> tuple[float, Any]:
        """When a packet that enters now is through, and the state after it."""
        ...

    def forget(self, now: float) -> None:
        """Take back what was planned for later than now."""
        ...


class TokenBucket:
    """`state` is when the bucket will be full again: all that a token bucket has to remember."""

    def __init__(self, rate_kbit: float, burst_bytes: int) -> None:
        self.state = 0.0
        self._byte_time = 8 * MS / rate_kbit
        self._burst = burst_bytes

    def plan(self, entry: float, size: int) -> tuple[float, float]:
        # A packet larger than the bucket waits until it is full, and leaves a debt.
        enough_at = self.state - max(self._burst - size, 0) * self._byte_time
        departure = max(entry, enough_at)
        return departure, max(self.state, departure) + size * self._byte_time

    def forget(self, now: float) -> None:
        self.state = min(self.state, now + self._burst * self._byte_time)


class TraceSchedule:
    """Opportunities at given milliseconds, from `start`, for ever repeated.

    `state` is the number of the opportunity in use, counted through all repetitions, and what it has left.
    """

    def __init__(self, times: tuple[int, ...], start: float) -> None:
        self.state = (0, OPPORTUNITY)
        self._times = times
        self._start = start

    def plan(self, entry: float, size: int) -> tuple[float, tuple[int, int]]:
        number, left = self.state
        first = self._first_from(entry)
        if first > number:  # those before went by unused
            number, left = first, OPPORTUNITY
        while size > left:
            size -= left
            number, left = number + 1, OPPORTUNITY
        return self._at(number), (number, left - size)

    def forget(self, now: float) -> None:
        self.state = (min(self.state[0], self._first_from(now)), OPPORTUNITY)

    def _first_from(self, entry: float) -> int:
        since = (entry - self._start) / MS
        round_, within = divmod(since, self._times[-1])
        # At the very end of a round its last opportunities are still ahead, hence the round before.
        if within == 0 and round_ > 0:
            round_, within = round_ - 1, float(self._times[-1])
        return max(int(round_) * len(self._times) + bisect_left(self._times, within), 0)

    def _at(self, number: int) -> float:
        round_, index = divmod(number, len(self._times))
        return self._start + (round_ * self._times[-1] + self._times[index]) * MS


class Bottleneck:
    """A schedule and the buffer before it, which drops what does not fit."""

    def __init__(self, pace: Schedule, buffer_bytes: int) -> None:
        self._pace = pace
        self._buffer = buffer_bytes
        self._waiting: deque[tuple[float, int]] = deque()
        self._backlog = 0

    def departure(self, entry: float, size: int) -> float | None:
        """When a packet has passed; None if the buffer is full. Entries must come in order."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= entry:
            self._backlog -= waiting.popleft()[1]
        departure, after = self._pace.plan(entry, size)
        if departure > entry:
            if self._backlog + size > self._buffer:
                return None
            waiting.append((departure, size))
            self._backlog += size
        self._pace.state = after
        return departure

    def flush(self, now: float) -> None:
        """Lose what waits."""
        self._waiting.clear()
        self._backlog = 0
        self._pace.forget(now)
