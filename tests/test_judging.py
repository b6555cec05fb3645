"""The judges of delays, rates and counts, fed with samples whose noise is known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from random import Random

import pytest

from tests import judging
from tests.judging import All, Best, Count, Delay, Judge, Rate, Spread, satisfy

# What a busy machine adds to most packets, in ms, and to a few nothing.
BUSY = (0.3, 2.0, 7.0, 25.0, 180.0)
SEEDS = range(10)


def noise(rng: Random) -> float:
    return 0.0 if rng.random() < 0.2 else rng.choice(BUSY) * rng.random()


def verdict(judge: Judge) -> str:
    if judge.excess():
        return "refused"
    return "not yet" if judge.lack() else "accepted"


# Delays


def delays(seed: int, asked: float, real: float) -> Delay:
    rng = Random(seed)
    times = [real + 0.1 + noise(rng) for _ in range(60)]
    return Delay(asked, times, [0.05 + noise(rng) for _ in range(60)])


@pytest.mark.parametrize(
    ("real", "expected"),
    [(50, "accepted"), (52, "not yet"), (54, "not yet"), (48, "refused"), (49.8, "refused")],
)
def test_a_delay_that_is_2_ms_off_is_noticed(real: float, expected: str) -> None:
    assert {verdict(delays(seed, 50, real)) for seed in SEEDS} == {expected}


def test_a_machine_that_is_slow_on_every_path_does_not_fail_a_delay() -> None:
    assert verdict(Delay(50, [55.2, 57.0], [5.1, 8.0])) == "accepted"
    assert verdict(Delay(50, [57.2, 57.4], [5.1, 8.0])) == "not yet"


def test_without_answers_nothing_is_accepted() -> None:
    assert verdict(Delay(50)) == verdict(Delay(50, [51.0])) == "not yet"
    assert verdict(Best(1, 2, "ms")) == verdict(Count(0.5)) == verdict(Rate(10)) == "not yet"


# Rates


def arrivals(seed: int, mbit: float, *, busy: bool) -> Iterator[tuple[float, int]]:
    """Frames that leave a bottleneck one after the other; a busy receiver looks late, and then gets many."""
    rng, frame = Random(seed), 1514
    looked, total = 0.0, 0
    for number in range(int(3 * mbit * 1e6 / 8 / frame)):
        left = number * frame * 8 / (mbit * 1e6)
        total += frame
        if left >= looked:
            looked = left + (noise(rng) / 1000 if busy else 0.0)
            yield looked, total


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("asked", [1, 10, 50])
@pytest.mark.parametrize(("share", "expected"), [(1, "accepted"), (1.07, "refused"), (0.93, "not yet")])
def test_a_rate_that_is_7_percent_off_is_noticed(
    asked: float, share: float, expected: str, busy: bool
) -> None:
    judges = [Rate(asked) for _ in SEEDS]
    for seed, judge in zip(SEEDS, judges, strict=True):
        for seconds, total in arrivals(seed, asked * share, busy=busy):
            judge.arrived(seconds, total)
    assert set(map(verdict, judges)) == {expected}


def test_a_sender_that_was_held_up_may_try_again() -> None:
    judge = Rate(10)
    for seconds, total in arrivals(1, 4, busy=True):
        judge.arrived(seconds, total)
    assert verdict(judge) == "not yet"
    for seconds, total in arrivals(1, 10, busy=False):
        judge.arrived(seconds, total)
    assert verdict(judge) == "accepted"


def test_the_delay_of_a_link_is_not_counted_as_lost_time() -> None:
    late, early = Rate(10, (0.28, 0.32)), Rate(10, (0.28, 0.32))
    for seconds, total in arrivals(1, 10, busy=False):
        late.arrived(seconds + 0.3, total)
        early.arrived(seconds + 0.2, total)
    assert (verdict(late), verdict(early)) == ("accepted", "refused")


# Counts


def test_noise_takes_away_and_never_adds() -> None:
    rng = Random(1)
    kept = sum(rng.random() < 0.9 for _ in range(1500))
    assert verdict(Count(0.9, [(1500, kept)])) == "accepted"
    assert verdict(Count(0.9, [(1500, kept - 300)])) == "not yet"
    assert verdict(Count(0.9, [(1500, kept - 300), (1500, kept)])) == "accepted"
    assert verdict(Count(0.9, [(1500, 1450), (1500, kept)])) == "refused"


# Spreads


def pairs(seed: int, low: float, high: float, count: int = 1000) -> list[tuple[float, float]]:
    rng = Random(seed)
    busy = [noise(rng) for _ in range(count)]
    return [(rng.uniform(low, high) + each, 50 + each) for each in busy]


@pytest.mark.parametrize("seed", SEEDS)
def test_an_even_spread_differs_from_others_on_a_busy_machine(seed: int) -> None:
    assert verdict(Spread(40, 60, pairs=pairs(seed, 40, 60))) == "accepted"
    assert verdict(Spread(40, 60, pairs=pairs(seed, 39, 61))) == "refused"
    assert verdict(Spread(40, 60, pairs=pairs(seed, 45, 55))) == "not yet"
    assert verdict(Spread(40, 60, pairs=pairs(seed, 43, 63))) == "not yet"
    assert verdict(Spread(40, 60, pairs=[(50.0, 50.0)] * 1000)) == "not yet"


def test_a_spread_waits_for_as_many_quiet_samples_as_it_needs() -> None:
    some = pairs(1, 40, 60)
    quiet = [index for index, (_, steady) in enumerate(some) if steady <= 50.5]
    assert verdict(Spread(40, 60, pairs=some[: quiet[199]])) == "not yet"
    assert verdict(Spread(40, 60, pairs=some[: quiet[199] + 1])) == "accepted"


# Sampling


async def test_sampling_goes_on_until_nothing_is_lacking() -> None:
    judge, values = Best(10, 12, "ms"), iter([90.0, 30.0, 11.0, 99.0])

    async def sample() -> None:
        judge.values.append(next(values))

    await satisfy(judge, sample)
    assert judge.values == [90, 30, 11]


async def test_what_noise_cannot_explain_ends_it_at_once() -> None:
    judge = Best(10, 12, "ms")

    async def sample() -> None:
        judge.values += [11.0, 9.0]

    with pytest.raises(AssertionError, match=re.escape("the thing: less than 10 ms: [9.0]")):
        await satisfy(judge, sample, "the thing")


async def test_a_bound_that_is_not_met_is_reported_with_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "_PATIENCE", 0.0)
    judge = All([Best(10, 12, "ms"), Best(0, 1, "bytes", [0.5])])

    async def sample() -> None:
        judge.judges[0].values += [13.0, 15.5]  # type: ignore[attr-defined]

    with pytest.raises(AssertionError, match=r"13 ms at the best, accepted up to 12(?s:.*)15\.5"):
        await satisfy(judge, sample)


def test_a_binomial_bound_holds_nearly_always() -> None:
    rng = Random(1)
    least, most = judging.binomial(400, 0.1)
    sums = [list(accumulate(rng.random() < 0.1 for _ in range(400)))[-1] for _ in range(500)]
    assert all(least <= each <= most for each in sums)
    assert most < 400 * 0.1 * 1.8
