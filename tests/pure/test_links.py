"""The condition of a link: presets, and what becomes of one condition when something is said of it."""

from math import inf

import pytest

from patchbay.model.lab import RegionLinkSpec, links_by_latency
from patchbay.model.link import (
    LINK_PRESETS,
    PERFECT,
    Condition,
    Direction,
    Impairment,
    LinkCondition,
    LinkPreset,
    RegionLink,
    Trace,
    merged,
)

TRACE = Trace("/t", 100.0)

# docs/behaviour.md, links: latency and jitter in ms, loss in %, rate in kbit/s; one way, in each direction.
PRESETS: dict[str, tuple[float | None, float | None, float | None, float | None]] = {
    "lan": (None, None, None, None),
    "wifi": (5, 2, 0.1, None),
    "wifi-bad": (40, 15, 2, 20_000),
    "mobile-4g": (25, 8, 0.5, None),
    "mobile": (25, 8, 0.5, None),
    "mobile-3g": (100, 30, 2, 2_000),
    "satellite": (40, 7, 1, None),
    "satellite-geo": (300, 20, 0.5, 25_000),
}


@pytest.mark.parametrize("name", PRESETS)
def test_on_a_new_link_this_is_the_preset(name: str) -> None:
    expected = Impairment(*PRESETS[name])
    assert merged(PERFECT, LINK_PRESETS[LinkPreset(name)]) == Condition(expected, expected)


def test_there_is_no_preset_beyond_these() -> None:
    assert [preset.value for preset in LinkPreset] == [*PRESETS] == [preset.value for preset in LINK_PRESETS]


EVERYTHING = Impairment(20, 5, 1, 1000, 2, 3, 4, 50)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_leaves_nothing_of_what_was(name: str) -> None:
    preset = LINK_PRESETS[LinkPreset(name)]
    assert merged(Condition(EVERYTHING, EVERYTHING), preset) == merged(PERFECT, preset)
    assert merged(Condition(Impairment(trace=TRACE), PERFECT.up), preset) == merged(PERFECT, preset)


# A direction, what is said of it, and what it becomes.
SAID = {
    "one value leaves the others": (
        Impairment(20, 5, 1),
        LinkCondition(loss_pct=3),
        Impairment(20, 5, 3),
    ),
    "nothing leaves all": (EVERYTHING, LinkCondition(), EVERYTHING),
    "zero takes a value away": (
        Impairment(20, 5, 1, reorder_pct=1),
        LinkCondition(jitter_ms=0, loss_pct=0, reorder_pct=0),
        Impairment(20),
    ),
    "zero of everything is no impairment": (
        EVERYTHING,
        LinkCondition(0, 0, 0, inf, 0, 0, 0, 0),
        Impairment(),
    ),
    "an infinite rate takes it away": (
        Impairment(20, rate_kbit=1000),
        LinkCondition(rate_kbit=inf),
        Impairment(20),
    ),
    "a buffer goes with its rate": (
        Impairment(rate_kbit=1000, buffer_kb=64),
        LinkCondition(rate_kbit=inf),
        Impairment(),
    ),
    "a buffer stays with another rate": (
        Impairment(rate_kbit=1000, buffer_kb=64),
        LinkCondition(rate_kbit=500),
        Impairment(rate_kbit=500, buffer_kb=64),
    ),
    "zero of a buffer is the default": (
        Impairment(rate_kbit=1000, buffer_kb=64),
        LinkCondition(buffer_kb=0),
        Impairment(rate_kbit=1000),
    ),
    "a rate takes the place of a trace": (
        Impairment(5, trace=TRACE),
        LinkCondition(rate_kbit=500),
        Impairment(5, rate_kbit=500),
    ),
    "an infinite rate takes a trace away too": (
        Impairment(trace=TRACE, buffer_kb=9),
        LinkCondition(rate_kbit=inf),
        Impairment(),
    ),
    "a trace takes the place of a rate, and has its buffer": (
        Impairment(5, rate_kbit=500, buffer_kb=64),
        LinkCondition(trace=TRACE),
        Impairment(5, trace=TRACE, buffer_kb=64),
    ),
    "a buffer without a rate is kept, to be refused": (
        Impairment(),
        LinkCondition(buffer_kb=9),
        Impairment(buffer_kb=9),
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_of_a_direction(case: str) -> None:
    old, said, expected = SAID[case]
    assert merged(Condition(old, old), said) == Condition(expected, expected)


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_value_of_one_direction_leaves_the_other_alone(way: str) -> None:
    old = Condition(Impairment(1, loss_pct=2), Impairment(3, loss_pct=4))
    changed = merged(old, LinkCondition(latency_ms=50), Direction(way))
    expected = {"up": Impairment(50, loss_pct=2), "down": Impairment(50, loss_pct=4)}
    other = {"up": "down", "down": "up"}[way]
    assert getattr(changed, way) == expected[way]
    assert getattr(changed, other) == getattr(old, other)


def test_a_value_of_one_direction_overrides_the_value_of_both() -> None:
    said = LinkCondition(latency_ms=20, loss_pct=1, up=Impairment(latency_ms=5), down=Impairment(loss_pct=0))
    assert merged(PERFECT, said) == Condition(Impairment(5, loss_pct=1), Impairment(20))


def test_a_rate_of_both_gives_way_to_the_trace_of_one() -> None:
    said = LinkCondition(rate_kbit=500, up=Impairment(trace=TRACE))
    assert merged(PERFECT, said) == Condition(Impairment(trace=TRACE), Impairment(rate_kbit=500))


def test_a_value_for_up_in_direction_down_changes_nothing() -> None:
    said = LinkCondition(up=Impairment(latency_ms=5))
    assert merged(PERFECT, said, Direction.DOWN) == PERFECT


def test_a_condition_is_something_only_if_it_does_something() -> None:
    assert not merged(PERFECT, LINK_PRESETS[LinkPreset.LAN])
    assert merged(PERFECT, LinkCondition(down=Impairment(loss_pct=1)))


SPREADS = {
    "nothing": (Impairment(), False),
    "latency alone": (Impairment(20), False),
    "loss": (Impairment(loss_pct=1), True),
    "jitter": (Impairment(20, jitter_ms=5), True),
    "a rate": (Impairment(rate_kbit=1000), True),
    "a trace": (Impairment(trace=TRACE), True),
}


@pytest.mark.parametrize("case", SPREADS)
def test_whether_packets_count_singly_with(case: str) -> None:
    impairment, spreads = SPREADS[case]
    assert impairment.spreads is spreads


def test_links_of_regions_have_two_short_names() -> None:
    assert RegionLink.good(40) == RegionLink(latency_ms=40)
    assert RegionLink.degraded(40) == RegionLink(latency_ms=40, jitter_ms=4, loss_pct=1)
    assert merged(PERFECT, RegionLink.degraded(40)).down == Impairment(40, 4, 1)


def test_between_regions_up_is_away_from_the_one_that_is_named_first() -> None:
    spec = RegionLinkSpec("eu", "us", LinkCondition(up=Impairment(1), down=Impairment(2)))
    assert spec.between("eu") == spec.condition
    assert spec.between("us") == LinkCondition(up=Impairment(2), down=Impairment(1))


LATENCIES = {
    "one-sided": ({"eu": {"us": 40.0}, "us": {}}, ("eu", "us", 40, 40)),
    "two-sided and alike": ({"eu": {"us": 40.0}, "us": {"eu": 40.0}}, ("eu", "us", 40, 40)),
    "two-sided and different": ({"eu": {"us": 40.0}, "us": {"eu": 50.0}}, ("eu", "us", 40, 50)),
    "said by the second": ({"eu": {}, "us": {"eu": 50.0}}, ("us", "eu", 50, 50)),
    "zero one way": ({"eu": {"us": 0.0}, "us": {"eu": 5.0}}, ("eu", "us", None, 5)),
}


@pytest.mark.parametrize("case", LATENCIES)
def test_latencies_between_regions_are(case: str) -> None:
    latencies, (a, b, up, down) = LATENCIES[case]
    (link,) = links_by_latency(latencies).values()
    assert (link.a, link.b) == (a, b)
    assert merged(PERFECT, link.condition) == Condition(Impairment(up), Impairment(down))


@pytest.mark.parametrize("names", [("eu", "us"), ("us", "eu")], ids=["same order", "other order"])
def test_a_condition_of_a_link_overrides_its_latencies_in(names: tuple[str, str]) -> None:
    (base,) = links_by_latency({"eu": {"us": 40.0}, "us": {"eu": 50.0}}).values()
    over = RegionLinkSpec(*names, LinkCondition(loss_pct=1, up=Impairment(rate_kbit=500)))
    found = over.applied_to(base)
    first, second = (40, 50) if names == ("eu", "us") else (50, 40)
    assert (found.a, found.b) == names
    assert merged(PERFECT, found.condition) == Condition(
        Impairment(first, loss_pct=1, rate_kbit=500), Impairment(second, loss_pct=1)
    )
