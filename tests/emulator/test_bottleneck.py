"""Rates and traces, by the clock of the test: times are in ns, written as multiples of a millisecond."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay.emulator.bottleneck import OPPORTUNITY, Bottleneck, TokenBucket, TraceSchedule
from tests.pure.labs import QUICK

MS = 1e6
SECOND = 1e9


def departures(bottleneck: Bottleneck, entries: list[float], size: int) -> list[float | None]:
    return [bottleneck.departure(entry, size) for entry in entries]


def test_a_rate_is_exact_over_a_second() -> None:
    # 10 Mbit/s are 1000 packets of 1250 bytes a second; the bucket holds two.
    bottleneck = Bottleneck(TokenBucket(10_000, 2500), 10_000_000)
    leave = departures(bottleneck, [5.0] * 1500, 1250)
    assert leave[:4] == [5.0, 5.0, 5.0 + MS, 5.0 + 2 * MS]
    assert sum(at < SECOND for at in leave if at is not None) == 1001


def test_a_bucket_fills_while_nothing_passes_but_not_above_its_size() -> None:
    bottleneck = Bottleneck(TokenBucket(10_000, 2500), 10_000_000)
    departures(bottleneck, [0.0] * 2, 1250)
    leave = departures(bottleneck, [SECOND] * 3, 1250)
    assert leave == [SECOND, SECOND, SECOND + MS]


def test_a_packet_larger_than_the_bucket_passes_and_leaves_a_debt() -> None:
    bottleneck = Bottleneck(TokenBucket(10_000, 1250), 10_000_000)
    assert departures(bottleneck, [0.0] * 3, 12_500) == [0.0, 10 * MS, 20 * MS]


def test_a_buffer_drops_what_does_not_fit_until_there_is_room_again() -> None:
    bottleneck = Bottleneck(TokenBucket(10_000, 1250), 2500)
    assert departures(bottleneck, [0.0] * 4, 1250) == [0.0, MS, 2 * MS, None]
    # After 1 ms one has left. What was dropped took nothing of the rate.
    assert departures(bottleneck, [MS] * 2, 1250) == [3 * MS, None]


def test_after_a_flush_nothing_waits_for_what_is_lost() -> None:
    bottleneck = Bottleneck(TokenBucket(10_000, 1250), 100_000)
    departures(bottleneck, [0.0] * 50, 1250)
    bottleneck.flush(2 * MS)
    assert departures(bottleneck, [2 * MS] * 2, 1250) == [3 * MS, 4 * MS]


def test_a_trace_is_read_manually() -> None:
    bottleneck = Bottleneck(TraceSchedule((1, 1, 4, 10), 100 * MS), 1_000_000)
    at = [100 * MS + t * MS for t in range(40)]
    half = OPPORTUNITY // 2
    # Two halves share the first opportunity; a full one takes the second, of the same millisecond.
    assert departures(bottleneck, [at[0]] * 2, half) == [at[1], at[1]]
    assert bottleneck.departure(at[0], OPPORTUNITY) == at[1]
    # What comes when an opportunity is due still gets it. The next takes what is there in two pieces.
    assert bottleneck.departure(at[4], half) == at[4]
    assert bottleneck.departure(at[4], OPPORTUNITY) == at[10]
    # The rest of that one is lost when its millisecond is over: the file begins again, at 10.
    assert bottleneck.departure(at[10] + 1, half) == at[11]
    # Unused for a round: nothing is saved up. 3 opportunities: 24, 30, 31.
    assert bottleneck.departure(at[22], 3 * OPPORTUNITY) == at[31]


def test_a_trace_that_begins_at_0_has_two_opportunities_where_it_begins_again() -> None:
    bottleneck = Bottleneck(TraceSchedule((0, 5), 0.0), 1_000_000)
    assert departures(bottleneck, [0.0] * 4, OPPORTUNITY) == [0.0, 5 * MS, 5 * MS, 10 * MS]
    assert departures(bottleneck, [15 * MS] * 3, OPPORTUNITY) == [15 * MS, 15 * MS, 20 * MS]


def test_after_a_flush_a_trace_goes_on_where_it_is() -> None:
    bottleneck = Bottleneck(TraceSchedule((10,), 0.0), 1_000_000)
    departures(bottleneck, [0.0] * 90, OPPORTUNITY)
    bottleneck.flush(25 * MS)
    assert bottleneck.departure(25 * MS, OPPORTUNITY) == 30 * MS


@QUICK
@given(
    times=st.lists(st.integers(0, 50), min_size=1, max_size=20).map(sorted).filter(lambda t: t[-1] > 0),
    packets=st.lists(st.tuples(st.integers(0, 20_000_000), st.integers(1, 5000)), max_size=40),
)
def test_a_trace_never_delivers_more_than_its_opportunities(
    times: list[int], packets: list[tuple[int, int]]
) -> None:
    bottleneck = Bottleneck(TraceSchedule(tuple(times), 0.0), 10**9)
    entry, leave = 0.0, []
    for gap, size in packets:
        entry += gap
        at = bottleneck.departure(entry, size)
        assert at is not None
        assert at >= entry
        leave.append((at, size))
    assert leave == sorted(leave, key=lambda pair: pair[0])
    for end in {at for at, _ in leave}:
        opportunities = sum(r * times[-1] + t <= end / MS for r in range(60) for t in times)
        if end / MS < 59 * times[-1]:
            assert sum(size for at, size in leave if at <= end) <= opportunities * OPPORTUNITY


@pytest.mark.parametrize("rate", [1, 64, 1_000, 123_456, 1_000_000])
@pytest.mark.parametrize("uptime", [0.0, 400 * 86_400 * SECOND])
def test_a_rate_is_as_exact_after_a_year(rate: int, uptime: float) -> None:
    bottleneck = Bottleneck(TokenBucket(rate, 1500), 10**9)
    leave = [bottleneck.departure(uptime, 1500) for _ in range(101)]
    assert leave[-1] is not None
    assert (leave[-1] - uptime) * rate / 8e6 == pytest.approx(100 * 1500, rel=1e-3)
