"""What becomes of packets on the way, by the clock and the dice of the test."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from patchbay.emulator.conditions import Conditions
from patchbay.emulator.frames import VNET
from patchbay.emulator.line import Line
from tests.pure.labs import QUICK

MS = 1_000_000
SECOND = 1_000 * MS


def line(seed: int = 1, **conditions: Any) -> Line:
    return Line(Conditions(**conditions), Random(seed), 0)


def packet(number: int, size: int = 100) -> bytes:
    return bytes(VNET) + number.to_bytes(4, "big").ljust(size, b"\0")


def number_of(data: bytes) -> int:
    return int.from_bytes(data[VNET : VNET + 4], "big")


def feed(way: Line, arrivals: Iterable[float], size: int = 100) -> None:
    for number, arrival in enumerate(arrivals):
        way.admit(packet(number, size), arrival)


def drain(way: Line) -> list[tuple[float, int]]:
    """(time, number) of all that still leaves, each at the moment for which the line asks to be woken."""
    left: list[tuple[float, int]] = []
    while (at := way.next_time()) is not None:
        left += [(at, number_of(data)) for data in way.due(at)]
    return left


def numbers(left: list[tuple[float, int]]) -> list[int]:
    return [number for _, number in left]


def test_a_delay_counts_from_the_arrival() -> None:
    way = line(latency_ms=25)
    feed(way, [0, 3 * MS])
    assert way.due(25 * MS - 1) == []
    assert drain(way) == [(25 * MS, 0), (28 * MS, 1)]
    assert way.queued == 0


def test_jitter_spreads_over_its_range_and_keeps_the_order() -> None:
    way = line(latency_ms=20, jitter_ms=10)
    feed(way, range(0, 2000 * SECOND, SECOND))  # far enough apart that none waits for another
    delays = [at - number * SECOND for at, number in drain(way)]
    assert 10 * MS <= min(delays) < 10.1 * MS
    assert 29.9 * MS < max(delays) <= 30 * MS
    assert abs(sum(delays) / len(delays) - 20 * MS) < 0.5 * MS
    feed(way, range(3000 * SECOND, 3001 * SECOND, MS))
    assert numbers(drain(way)) == list(range(1000))


def test_more_jitter_than_delay_never_sends_before_the_arrival() -> None:
    way = line(latency_ms=1, jitter_ms=10)
    feed(way, range(0, 100 * SECOND, SECOND))
    assert min(at - number * SECOND for at, number in drain(way)) == 0


def test_loss_is_of_the_asked_share() -> None:
    way = line(loss_pct=2)
    feed(way, range(100_000))
    assert abs(way.lost - 2000) < 5 * (100_000 * 0.02 * 0.98) ** 0.5
    assert len(drain(way)) + way.lost == 100_000
    everything = line(loss_pct=100)
    feed(everything, range(100))
    assert (everything.lost, drain(everything)) == (100, [])


def test_a_seed_decides_what_is_lost() -> None:
    outcomes = []
    for seed in (1, 1, 2):
        way = line(seed, loss_pct=20)
        feed(way, range(100))
        outcomes.append(numbers(drain(way)))
    assert outcomes[0] == outcomes[1] != outcomes[2]


def test_duplicates_follow_their_original() -> None:
    way = line(duplicate_pct=100, latency_ms=5)
    feed(way, [0, 1])
    assert numbers(drain(way)) == [0, 0, 1, 1]
    assert way.duplicated == 2


def test_corruption_damages_each_copy_by_itself() -> None:
    way = line(duplicate_pct=100, corrupt_pct=100)
    feed(way, [0])
    one, other = way.due(0)
    assert way.corrupted == 2
    assert len({one, other, packet(0)}) == 3


def test_what_is_picked_to_reorder_skips_the_delay() -> None:
    way = line(latency_ms=10, reorder_pct=25)
    feed(way, range(0, 4000 * SECOND, SECOND))
    delays = [at - number * SECOND for at, number in drain(way)]
    assert set(delays) == {0, 10 * MS}
    assert delays.count(0) == way.reordered
    assert abs(way.reordered - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5
    feed(way, range(5000 * SECOND, 5001 * SECOND, MS))
    order = numbers(drain(way))
    assert sorted(order) == list(range(1000)) != order


def test_what_overtakes_still_has_to_pass_the_bottleneck() -> None:
    # 1 packet of 1250 bytes a millisecond, four times as many come, half of these skip the delay.
    way = line(latency_ms=50, reorder_pct=50, rate_kbit=10_000, burst_bytes=1250, buffer_bytes=12_500)
    feed(way, range(0, SECOND, MS // 4), size=1250)
    times = [at for at, _ in drain(way)]
    assert times == sorted(times)
    assert all(later - earlier >= MS - 1 for earlier, later in pairwise(times))
    assert 1000 <= len(times) <= 1061
    assert way.dropped == 4000 - len(times)


def test_reorder_without_a_delay_changes_nothing() -> None:
    way = line(reorder_pct=50)
    feed(way, range(100))
    assert numbers(drain(way)) == list(range(100))
    assert way.reordered == 0


def test_a_delay_line_holds_no_more_than_its_limit() -> None:
    way = line(latency_ms=10, limit=3)
    feed(way, [0, 0, 0, 0, 10 * MS])
    assert way.dropped == 1
    # When the fourth was dropped and the fifth came, the others had just left.
    assert numbers(drain(way)) == [0, 1, 2, 4]


def test_the_limit_is_not_of_the_bottleneck() -> None:
    way = line(latency_ms=1, limit=2, rate_kbit=10, burst_bytes=100, buffer_bytes=10_000)
    feed(way, range(0, 50 * MS, MS))
    assert way.dropped == 0


def test_a_rate_counts_ethernet_frames_without_the_virtio_header() -> None:
    way = line(rate_kbit=10_000, burst_bytes=1250, buffer_bytes=100_000)
    feed(way, [0] * 4, size=1250)
    assert drain(way) == [(0, 0), (MS, 1), (2 * MS, 2), (3 * MS, 3)]


def test_delay_and_rate_add_up() -> None:
    way = line(latency_ms=20, rate_kbit=10_000, burst_bytes=1250, buffer_bytes=2500)
    feed(way, [0] * 4, size=1250)
    assert drain(way) == [(20 * MS, 0), (21 * MS, 1), (22 * MS, 2)]
    assert way.dropped == 1


def test_a_change_is_for_what_comes_after_it() -> None:
    way = line(latency_ms=100)
    way.admit(packet(0), 0)
    way.change(Conditions(latency_ms=200), MS)
    way.admit(packet(1), MS)
    way.change(Conditions(), 2 * MS)
    way.admit(packet(2), 2 * MS)
    assert not way.transparent
    assert drain(way) == [(2 * MS, 2), (100 * MS, 0), (201 * MS, 1)]
    assert way.transparent


def test_what_comes_after_a_change_keeps_its_order_beside_what_was_before() -> None:
    way = line(latency_ms=100)
    feed(way, [0, MS])
    way.change(Conditions(latency_ms=95, jitter_ms=10), 2 * MS)
    for number in range(2, 50):
        way.admit(packet(number), 2 * MS + number * 1000)
    order = numbers(drain(way))
    assert [number for number in order if number > 1] == list(range(2, 50))
    assert order.index(0) < order.index(1)


def test_what_waits_at_a_rate_keeps_its_time_when_the_rate_changes() -> None:
    way = line(rate_kbit=10_000, burst_bytes=1250, buffer_bytes=100_000, latency_ms=5)
    feed(way, [0] * 3, size=1250)
    way.change(Conditions(rate_kbit=1_000, burst_bytes=1250, buffer_bytes=100_000), 0)
    way.admit(packet(3, 1250), 0)
    way.admit(packet(4, 1250), 0)
    assert drain(way) == [(5 * MS, 0), (6 * MS, 1), (7 * MS, 2), (7 * MS, 3), (10 * MS, 4)]


def test_a_rate_that_stays_is_not_refilled_by_a_change_of_something_else() -> None:
    shape = {"rate_kbit": 10_000, "burst_bytes": 1250, "buffer_bytes": 100_000}
    way = line(**shape)
    way.admit(packet(0, 1250), 0)
    way.change(Conditions(loss_pct=0.0001, **shape), 0)  # type: ignore[arg-type]
    way.admit(packet(1, 1250), 0)
    assert drain(way) == [(0, 0), (MS, 1)]


def test_a_flush_loses_all_and_holds_up_nothing() -> None:
    way = line(latency_ms=1000, rate_kbit=10, burst_bytes=100, buffer_bytes=100_000)
    feed(way, [0] * 100)
    way.due(1500 * MS)
    way.flush(1500 * MS)
    assert (way.queued, way.next_time()) == (0, None)
    way.change(Conditions(), 1500 * MS)
    way.admit(packet(7), 1500 * MS)
    assert drain(way) == [(1500 * MS, 7)]


@QUICK
@given(
    seed=st.integers(0, 99),
    gaps=st.lists(st.integers(0, 3 * MS), max_size=60),
    conditions=st.fixed_dictionaries(
        {
            "latency_ms": st.sampled_from([0, 1, 7.5]),
            "jitter_ms": st.sampled_from([0, 5]),
            "loss_pct": st.sampled_from([0, 10]),
            "duplicate_pct": st.sampled_from([0, 10]),
            "limit": st.sampled_from([5, 1000]),
        }
    ),
    rate=st.sampled_from([0, 500, 20_000]),
)
def test_every_packet_is_accounted_for_and_order_is_kept(
    seed: int, gaps: list[int], conditions: dict[str, Any], rate: int
) -> None:
    shape = {"rate_kbit": rate, "burst_bytes": 1000, "buffer_bytes": 900} if rate else {}
    way = line(seed, **conditions, **shape)
    left: list[tuple[float, int]] = []
    now = 0
    for number, gap in enumerate(gaps):
        now += gap
        way.admit(packet(number), now)
        left += [(now, number_of(data)) for data in way.due(now)]
    left += drain(way)
    assert len(left) == len(gaps) - way.lost + way.duplicated - way.dropped
    assert numbers(left) == sorted(numbers(left))
    assert [at for at, _ in left] == sorted(at for at, _ in left)
