"""Link conditions that no link can have, each with its path and the whole message."""

from math import inf, nan
from typing import Any

import pytest

from patchbay.config.converter import shared_converter, structure
from patchbay.errors import SpecError
from patchbay.layout.wires import combined
from patchbay.model.link import PERFECT, Condition, Impairment, LinkCondition, RegionLink, Trace, merged
from tests.pure.labs import problems_of

PRESETS = "'lan', 'wifi', 'wifi-bad', 'mobile-4g', 'mobile', 'mobile-3g', 'satellite', 'satellite-geo'"
TABLE = "or a table such as { latency_ms = 20 }"
MS, PERCENT = "0 to 60 000 ms", "0 to 100 %"
RATE = "12 to 100 000 000 kbit/s, or 0 for no limit; 12 kbit/s is one packet a second"
BUFFER = "2 to 1 000 000 kB, or 0 for the default"
KEYS = "latency_ms, jitter_ms, loss_pct, rate_kbit, reorder_pct, duplicate_pct, corrupt_pct, buffer_kb, trace"

# A value, and its problems: path and message.
NO_TABLE = "a preset's name or a table such as { latency_ms = 20 }"
BAD: dict[str, tuple[Any, ...]] = {
    "a negative latency": ({"latency_ms": -1}, ("latency_ms", f"found -1; accepted: {MS}")),
    "a latency of more than a minute": (
        {"latency_ms": 60001},
        ("latency_ms", f"found 60001; accepted: {MS}"),
    ),
    "an infinite latency": ({"latency_ms": inf}, ("latency_ms", f"found inf; accepted: {MS}")),
    "a latency that is no number": ({"latency_ms": nan}, ("latency_ms", f"found nan; accepted: {MS}")),
    "a negative jitter": ({"jitter_ms": -0.5}, ("jitter_ms", "found -0.5; accepted: 0 to 2 000 ms")),
    "more jitter than netem has": (
        {"latency_ms": 5000, "jitter_ms": 2001},
        ("jitter_ms", "found 2001; accepted: 0 to 2 000 ms"),
    ),
    "a negative loss": ({"loss_pct": -1}, ("loss_pct", f"found -1; accepted: {PERCENT}")),
    "a loss of more than all": ({"loss_pct": 100.5}, ("loss_pct", f"found 100.5; accepted: {PERCENT}")),
    "more reordered than there are": (
        {"reorder_pct": 101},
        ("reorder_pct", f"found 101; accepted: {PERCENT}"),
    ),
    "more duplicated than there are": (
        {"duplicate_pct": 101},
        ("duplicate_pct", f"found 101; accepted: {PERCENT}"),
    ),
    "more corrupted than there are": (
        {"corrupt_pct": 101},
        ("corrupt_pct", f"found 101; accepted: {PERCENT}"),
    ),
    "less than a packet a second": ({"rate_kbit": 11.9}, ("rate_kbit", f"found 11.9; accepted: {RATE}")),
    "a negative rate": ({"rate_kbit": -inf}, ("rate_kbit", f"found -inf; accepted: {RATE}")),
    "a rate beyond Ethernet": ({"rate_kbit": 1e9}, ("rate_kbit", f"found 1e+09; accepted: {RATE}")),
    "a buffer below a packet": ({"buffer_kb": 1}, ("buffer_kb", f"found 1; accepted: {BUFFER}")),
    "an infinite buffer": ({"buffer_kb": inf}, ("buffer_kb", f"found inf; accepted: {BUFFER}")),
    "a bad value of one direction": (
        {"up": {"loss_pct": 101}},
        ("up.loss_pct", f"found 101; accepted: {PERCENT}"),
    ),
    "several at once": (
        {
            "latency_ms": -1,
            "loss_pct": 101,
            "up": {"rate_kbit": 1},
            "down": {"jiter_ms": 1, "corrupt_pct": -1},
        },
        ("up.rate_kbit", f"found 1; accepted: {RATE}"),
        ("down.jiter_ms", f"unknown key; accepted: {KEYS}; did you mean 'jitter_ms'?"),
        ("down.corrupt_pct", f"found -1; accepted: {PERCENT}"),
        ("latency_ms", f"found -1; accepted: {MS}"),
        ("loss_pct", f"found 101; accepted: {PERCENT}"),
    ),
    "an unknown key": (
        {"latency": 20},
        ("latency", f"unknown key; accepted: {KEYS}, up, down; did you mean 'latency_ms'?"),
    ),
    "a string for a number": ({"loss_pct": "1 %"}, ("loss_pct", "found '1 %'; accepted: a number")),
    "true for a number": ({"loss_pct": True}, ("loss_pct", "found a boolean (True); accepted: a number")),
    "a number for a direction": ({"up": 20}, ("up", "found an integer (20); accepted: a table")),
    "a direction within a direction": (
        {"up": {"down": {}}},
        ("up.down", f"unknown key; accepted: {KEYS}"),
    ),
    "an unknown preset": ("wify", ("", f"found 'wify'; accepted: {PRESETS}, {TABLE}; did you mean 'wifi'?")),
    "a preset in capitals": ("WIFI", ("", f"found 'WIFI'; accepted: {PRESETS}, {TABLE}")),
    "an array": ([20], ("", f"found an array; accepted: {NO_TABLE}")),
    "nothing": (None, ("", f"found NoneType (None); accepted: {NO_TABLE}")),
    "true": (True, ("", f"found a boolean (True); accepted: {NO_TABLE}")),
    "a trace that is no path": (
        {"trace": 3},
        ("trace", "found an integer (3); accepted: the path of a packet-delivery trace"),
    ),
}


def problems(value: object, wanted: type = LinkCondition) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as raised:
        structure(shared_converter(), value, wanted)
    return [(problem.path, problem.message) for problem in raised.value.problems]


@pytest.mark.parametrize("wanted", [LinkCondition, RegionLink])
@pytest.mark.parametrize("case", BAD)
def test_no_condition_is(case: str, wanted: type) -> None:
    value, *expected = BAD[case]
    assert problems(value, wanted) == expected


# What a value that is made in Python is refused for, at once.
MADE: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "a negative latency": ({"latency_ms": -1}, ("latency_ms", f"found -1; accepted: {MS}")),
    "a string": ({"loss_pct": "1 %"}, ("loss_pct", f"found '1 %'; accepted: {PERCENT}")),
    "true": ({"loss_pct": True}, ("loss_pct", f"found True; accepted: {PERCENT}")),
    "a rate beside a trace": (
        {"rate_kbit": 100, "trace": Trace("/t", 1)},
        ("trace", "a direction has a rate or a trace, not both"),
    ),
}


@pytest.mark.parametrize("kind", [Impairment, LinkCondition, RegionLink])
@pytest.mark.parametrize("case", MADE)
def test_a_value_made_in_python_is_checked_when_it_is_made(case: str, kind: type[Impairment]) -> None:
    fields, problem = MADE[case]
    with pytest.raises(SpecError) as raised:
        kind(**fields)
    assert [(found.path, found.message) for found in raised.value.problems] == [problem]


def test_only_between_regions_is_a_number_a_condition() -> None:
    expected = "a preset's name or a table such as { latency_ms = 20 }"
    assert problems(20) == [("", f"found an integer (20); accepted: {expected}")]
    assert problems(-1, RegionLink) == [("latency_ms", f"found -1; accepted: {MS}")]


EDGES = [
    {"latency_ms": 60000, "jitter_ms": 2000},
    {"loss_pct": 100, "duplicate_pct": 100, "corrupt_pct": 100},
    {"rate_kbit": 12},
    {"rate_kbit": 1e8, "buffer_kb": 2},
    {"rate_kbit": inf, "buffer_kb": 0},
    {"rate_kbit": 0},
    {"rate_kbit": 100, "buffer_kb": 1_000_000},
]


@pytest.mark.parametrize("value", EDGES, ids=str)
def test_what_is_just_within_is_accepted(value: dict[str, float]) -> None:
    said = structure(shared_converter(), value, LinkCondition)
    assert list(combined(merged(PERFECT, said), "")) == []


# What is fine singly, and not together: of a link as it is, what is said of it, and the problems.
JITTER = "found {}, more than the latency; accepted: 0 to latency_ms ({}) ms"
OVERTAKE = "without latency there is nothing to overtake; accepted: together with latency_ms"
FILLED = "a buffer is filled only where there is a rate; accepted: together with rate_kbit"
TOGETHER: dict[str, tuple[Condition, LinkCondition, list[tuple[str, str]]]] = {
    "more jitter than latency": (
        PERFECT,
        LinkCondition(latency_ms=10, jitter_ms=11),
        [
            ("jitter_ms", f"(up) {JITTER.format(11, 10)}"),
            ("jitter_ms", f"(down) {JITTER.format(11, 10)}"),
        ],
    ),
    "jitter without latency": (
        PERFECT,
        LinkCondition(up=Impairment(jitter_ms=1)),
        [
            ("jitter_ms", f"(up) {JITTER.format(1, 0)}"),
        ],
    ),
    "less latency than there is jitter": (
        Condition(Impairment(30, 10), Impairment(30)),
        LinkCondition(latency_ms=5),
        [
            ("jitter_ms", f"(up) {JITTER.format(10, 5)}"),
        ],
    ),
    "reordering without latency": (
        PERFECT,
        LinkCondition(down=Impairment(reorder_pct=1)),
        [
            ("reorder_pct", f"(down) {OVERTAKE}"),
        ],
    ),
    "a buffer without a rate": (
        PERFECT,
        LinkCondition(up=Impairment(buffer_kb=9)),
        [
            ("buffer_kb", f"(up) {FILLED}"),
        ],
    ),
}


@pytest.mark.parametrize("case", TOGETHER)
def test_a_link_cannot_have_together(case: str) -> None:
    old, said, expected = TOGETHER[case]
    found = combined(merged(old, said), "")
    assert [(problem.path, problem.message) for problem in found] == expected


GOOD = {
    "as much jitter as latency": LinkCondition(latency_ms=10, jitter_ms=10),
    "more jitter where reordering is asked for": LinkCondition(latency_ms=10, jitter_ms=20, reorder_pct=1),
    "a buffer beside a trace": LinkCondition(trace=Trace("/t", 1), buffer_kb=9),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_link_can_have_together(case: str) -> None:
    assert list(combined(merged(PERFECT, GOOD[case]), "")) == []


# Where it stands in a lab file.

ROUTER = '[[router]]\nname = "r"\n'
DEVICE = '[device.d.eth0]\ngateway = "r"\n'
REGIONS = "[region.eu]\n[region.us]\n"
REGION_LINK = "[[region-link]]\na = 'eu'\nb = 'us'\n"
FILES = {
    "a downlink": (f"{ROUTER}downlink = 'wify'", "router[0].downlink"),
    "a value of a downlink": (
        f"{ROUTER}downlink = {{ up = {{ loss_pct = 101 }} }}",
        "router[0].downlink.up.loss_pct",
    ),
    "values of a downlink together": (
        f"{ROUTER}downlink = {{ up = {{ jitter_ms = 1 }} }}",
        "router[0].downlink.jitter_ms",
    ),
    "a link": (f"{ROUTER}{DEVICE}link = {{ loss_pct = 101 }}", "device.d.eth0.link.loss_pct"),
    "the older name of a link": (
        f"{ROUTER}{DEVICE}impair = {{ loss_pct = 101 }}",
        "device.d.eth0.impair.loss_pct",
    ),
    "values of a link together": (
        f"{ROUTER}{DEVICE}link = {{ up = {{ jitter_ms = 1 }} }}",
        "device.d.eth0.link.jitter_ms",
    ),
    "a latency of a region": ("[region.eu]\nlatencies = { us = -1 }\n[region.us]", "region.eu.latencies.us"),
    "a latency of a region that is no number": (
        "[region.eu]\nlatencies = { us = '40' }\n[region.us]",
        "region.eu.latencies.us",
    ),
    "latencies that are no table": ("[region.eu]\nlatencies = 40", "region.eu.latencies"),
    "a latency to a misspelt region": (
        "[region.asia]\n[region.eu]\nlatencies = { aisa = 40 }",
        "region.eu.latencies",
    ),
    "a latency to the region itself": ("[region.eu]\nlatencies = { eu = 40 }", "region.eu.latencies"),
    "a region link": (f"{REGIONS}{REGION_LINK}loss_pct = 101", "region-link[0].loss_pct"),
    "one direction of a region link": (
        f"{REGIONS}{REGION_LINK}down = {{ loss_pct = 101 }}",
        "region-link[0].down.loss_pct",
    ),
    "values of a region link together": (
        f"{REGIONS}{REGION_LINK}up = {{ jitter_ms = 1 }}",
        "region-link[0].jitter_ms",
    ),
    "a region link to a misspelt region": (
        "[region.asia]\n[[region-link]]\na = 'eu'\nb = 'asai'",
        "region-link[0].b",
    ),
    "a region link to itself": ("[region.eu]\n[[region-link]]\na = 'eu'\nb = 'eu'", "region-link[0]"),
    "an unknown key of a region link": (f"{REGIONS}{REGION_LINK}los_pct = 1", "region-link[0].los_pct"),
    "a region link without a second": ("[region.eu]\n[[region-link]]\na = 'eu'", "region-link[0].b"),
    "one table for the array of region links": (f"{REGIONS}[region-link]\na = 'eu'", "region-link"),
    "both names of a link": (f"{ROUTER}{DEVICE}link = 'wifi'\nimpair = 'wifi'", "device.d.eth0.impair"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_is_refused_at(case: str) -> None:
    toml, path = FILES[case]
    assert [found for found, _ in problems_of(toml)] == [path]


def test_all_problems_of_links_are_reported_at_once() -> None:
    toml = (
        f"[region.eu]\nlatencies = {{ us = -1, asia = 3 }}\n[region.us]\n{REGION_LINK}rate_kbit = 1\n"
        f"{ROUTER}downlink = {{ jitter_ms = 1 }}\n{DEVICE}link = {{ loss_pct = 101, up = {{ x = 1 }} }}\n"
    )
    assert [path for path, _ in problems_of(toml)] == [
        "device.d.eth0.link.up.x",
        "device.d.eth0.link.loss_pct",
        "region.eu.latencies.us",
        "region-link[0].rate_kbit",
        "router[0].downlink.jitter_ms",
        "router[0].downlink.jitter_ms",
    ]
