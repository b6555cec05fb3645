"""tc: arguments that the kernel took as they were meant, and what its answer tells when it did not.

What `tc -j qdisc show` says was recorded from iproute2 6.1 on Linux 6.12; tests/links compares.
"""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from patchbay.model.link import Impairment
from patchbay.model.names import IfName
from patchbay.tools.tc import Netem, Tbf, differences, netem_replace, root_del, tbf_replace
from tests.pure.qdiscs import DEV, DIRECTIONS, EVERYTHING, command_lines, recorded, wanted_of

Shown = list[dict[str, Any]]


def found(impairment: Impairment, shown: Shown) -> list[str]:
    return differences({DEV: wanted_of(impairment)}, json.dumps(shown))


def test_these_are_the_arguments() -> None:
    netem, tbf = Netem(EVERYTHING, 1234), Tbf(2000, 3028, 64000)
    assert " ".join(netem_replace(DEV, netem)) == (
        "qdisc replace dev wire1-near root handle 1: netem limit 1234 delay 40ms 10ms loss random 1.5% "
        "duplicate 2% reorder 5% corrupt 0.5% rate 100gbit"
    )
    assert " ".join(netem_replace(DEV, Netem(Impairment(loss_pct=0.1), 1000))) == (
        "qdisc replace dev wire1-near root handle 1: netem limit 1000 delay 1us 0ms loss random 0.1% "
        "duplicate 0% reorder 0% corrupt 0% rate 0bit"
    )
    assert " ".join(tbf_replace(DEV, tbf)) == (
        "qdisc replace dev wire1-near parent 1:1 handle 10: tbf rate 2000000bit burst 3028 limit 64000"
    )
    assert " ".join(root_del(DEV)) == "qdisc del dev wire1-near root"


def test_no_number_is_written_in_a_way_that_tc_cannot_read() -> None:
    small = Netem(Impairment(0.00001, 0.00001, 0.0000123, None, 1e-9), 1)
    large = Tbf(100_000_000, 25_000_000, 1_000_000_000)
    for line in (netem_replace(DEV, small), tbf_replace(DEV, large)):
        assert not any("e+" in word for word in line)


@pytest.mark.parametrize("case", DIRECTIONS)
def test_the_kernel_has_been_asked_for(case: str) -> None:
    """If this fails the arguments have changed: record them anew, on a kernel with netem."""
    assert recorded()[case]["lines"] == command_lines(case)


@pytest.mark.parametrize("case", DIRECTIONS)
def test_the_kernel_has_taken(case: str) -> None:
    assert found(DIRECTIONS[case], recorded()[case]["shown"]) == []


# Seen by hand in what was recorded: each of these options was replaced by the next direction.
KINDS = {
    "every option": {
        "netem",
        "delay",
        "jitter",
        "loss-random",
        "duplicate",
        "reorder",
        "corrupt",
        "rate",
        "tbf",
    },
    "no option but loss": {"netem", "loss-random"},
    "latency alone": {"netem", "delay"},
    "a rate alone": {"netem", "tbf"},
    "jitter and order": {"netem", "delay", "jitter", "rate"},
    "corruption alone": {"netem", "corrupt"},
}


@pytest.mark.parametrize("case", KINDS)
def test_with_replace_nothing_is_left_of_what_was_set_before(case: str) -> None:
    seen = set()
    for qdisc in recorded()[case]["shown"]:
        seen.add(qdisc["kind"])
        if qdisc["kind"] == "netem":
            options = qdisc["options"]
            seen |= options.keys() & {"loss-random", "duplicate", "reorder", "corrupt", "rate"}
            seen |= {key for key in ("delay", "jitter") if options["delay"][key]}
    assert seen == KINDS[case]


@pytest.mark.parametrize("case", DIRECTIONS)
def test_directions_that_the_kernel_does_not_have_are_reported(case: str) -> None:
    shown = recorded()[case]["shown"]
    for other, impairment in DIRECTIONS.items():
        assert bool(found(impairment, shown)) == (impairment != DIRECTIONS[case]), other


def netem_of(shown: Shown) -> dict[str, Any]:
    return next(qdisc["options"] for qdisc in shown if qdisc["kind"] == "netem")


def tbf_of(shown: Shown) -> dict[str, Any]:
    return next(qdisc["options"] for qdisc in shown if qdisc["kind"] == "tbf")


# What is changed in what the kernel showed of "every option", and what is said then.
CHANGES: dict[str, tuple[Callable[[Shown], object], str]] = {
    "limit": (lambda q: netem_of(q).update(limit=1000), "asked for limit 1196; the kernel has 1000"),
    "delay": (lambda q: netem_of(q)["delay"].update(delay=0.02), "asked for delay 0.04; the kernel has 0.02"),
    "jitter": (lambda q: netem_of(q)["delay"].update(jitter=0), "asked for jitter 0.01; the kernel has 0"),
    "loss": (lambda q: netem_of(q).pop("loss-random"), "asked for loss 0.015; the kernel has 0"),
    "duplicates": (lambda q: netem_of(q).pop("duplicate"), "asked for duplicate 0.02; the kernel has 0"),
    "reordering": (lambda q: netem_of(q).pop("reorder"), "asked for reorder 0.05; the kernel has 0"),
    "corruption": (lambda q: netem_of(q).pop("corrupt"), "asked for corrupt 0.005; the kernel has 0"),
    "order": (lambda q: netem_of(q).pop("rate"), "asked for rate 1.25e+10; the kernel has 0"),
    "rate": (lambda q: tbf_of(q).update(rate=1), "asked for rate 250000; the kernel has 1"),
    "burst": (lambda q: tbf_of(q).update(burst=1), "asked for burst 3028; the kernel has 1"),
    "buffer": (lambda q: tbf_of(q).update(lat=1), "asked for limit 64000; the kernel has 3028"),
    "a bucket": (lambda q: q.pop(), "asked for a rate; the kernel has no token bucket"),
    "a word for a number": (
        lambda q: tbf_of(q).update(rate="x"),
        "asked for rate 250000; the kernel has 'x'",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_difference_is_an_event(case: str) -> None:
    change, said = CHANGES[case]
    shown = copy.deepcopy(recorded()["every option"]["shown"])
    change(shown)
    assert found(EVERYTHING, shown) == [f"wire1-near: {said}"]


def test_a_delay_that_tc_shows_a_microsecond_short_is_what_was_asked_for() -> None:
    """Seen with 6.12 and iproute2 6.1: 0.1 ms comes back as 9.9e-05 s."""
    shown = copy.deepcopy(recorded()["latency alone"]["shown"])
    netem_of(shown)["limit"] = wanted_of(Impairment(latency_ms=0.1))[0].limit
    netem_of(shown)["delay"]["delay"] = 9.9e-05
    assert found(Impairment(latency_ms=0.1), shown) == []
    netem_of(shown)["delay"]["delay"] = 9.7e-05
    assert found(Impairment(latency_ms=0.1), shown) == [
        "wire1-near: asked for delay 0.0001; the kernel has 9.7e-05"
    ]


def test_an_unexpected_bucket_is_reported() -> None:
    shown = recorded()["no option but loss"]["shown"] + recorded()["every option"]["shown"][1:]
    assert found(Impairment(loss_pct=1), shown) == [
        "wire1-near: asked for no rate; the kernel has a token bucket"
    ]


@pytest.mark.parametrize(
    "shown", ["", "[]", '[{"kind":"noqueue","handle":"0:","dev":"wire1-near","options":{}}]']
)
def test_an_empty_change_has_no_event(shown: str) -> None:
    assert differences({DEV: wanted_of(Impairment(latency_ms=1))}, shown) == [
        "wire1-near: asked for netem; the kernel has none"
    ]


def test_of_several_interfaces_each_is_compared_with_its_own() -> None:
    shown = copy.deepcopy(recorded()["every option"]["shown"])
    late = copy.deepcopy(recorded()["latency alone"]["shown"])
    for qdisc in late:
        qdisc["dev"] = "wire2-near"
    other = IfName("wire2-near")
    wanted = {DEV: wanted_of(EVERYTHING), other: wanted_of(Impairment(latency_ms=25))}
    assert differences(wanted, json.dumps(shown + late)) == []
    swapped = {DEV: wanted[other], other: wanted[DEV]}
    assert {line.partition(":")[0] for line in differences(swapped, json.dumps(shown + late))} == {
        "wire1-near",
        "wire2-near",
    }
