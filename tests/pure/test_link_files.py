"""Link conditions as users write them: presets, tables, objects, numbers and traces."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from patchbay.config.converter import shared_converter, structure
from patchbay.config.lab_file import draft_lab, read_lab
from patchbay.errors import SpecError
from patchbay.model.lab import LabSpec
from patchbay.model.link import (
    LINK_PRESETS,
    PERFECT,
    Condition,
    Impairment,
    LinkCondition,
    LinkPreset,
    RegionLink,
    merged,
)
from tests.pure.labs import layout_of

WIFI = LINK_PRESETS[LinkPreset.WIFI]
TWENTY = LinkCondition(latency_ms=20)

WAYS: dict[str, tuple[list[Any], LinkCondition]] = {
    "a preset": (["wifi", LinkPreset.WIFI, WIFI, WIFI.set_values()], WIFI),
    "one value": ([{"latency_ms": 20}, {"latency_ms": 20.0}, TWENTY, RegionLink.good(20)], TWENTY),
    "one direction": (
        [{"up": {"loss_pct": 1}}, {"up": Impairment(loss_pct=1)}, LinkCondition(up=Impairment(loss_pct=1))],
        LinkCondition(up=Impairment(loss_pct=1)),
    ),
    "nothing": ([{}, LinkCondition()], LinkCondition()),
}


@pytest.mark.parametrize("case", WAYS)
@pytest.mark.parametrize("wanted", [LinkCondition, RegionLink])
def test_equal_are_the_ways_to_say(case: str, wanted: type) -> None:
    values, expected = WAYS[case]
    assert [structure(shared_converter(), value, wanted) for value in values] == [expected] * len(values)


@pytest.mark.parametrize("ms", [20, 20.0])
def test_of_regions_a_number_is_the_latency(ms: float) -> None:
    assert structure(shared_converter(), ms, RegionLink) == TWENTY


LAB = """
[[router]]
name = "r"
downlink = { latency_ms = 7 }
[device.d]
[device.d.one]
gateway = "r"
impair = "wifi"
[device.d.two]
gateway = "r"
link = { rate_kbit = 1000, up = { rate_kbit = 100 }, down = { loss_pct = 2 } }
[device.d.three]
gateway = "r"
"""


def conditions(toml: str) -> dict[tuple[str, ...], Condition]:
    return {key: wire.condition for key, wire in layout_of(toml).wires.items()}


def test_a_file_may_condition_interfaces_and_downlinks() -> None:
    wifi = Impairment(5, 2, 0.1)
    assert conditions(LAB) == {
        ("downlink", "r"): Condition(Impairment(7), Impairment(7)),
        ("link", "d", "one"): Condition(wifi, wifi),
        ("link", "d", "two"): Condition(Impairment(rate_kbit=100), Impairment(loss_pct=2, rate_kbit=1000)),
    }


def test_every_device_of_a_count_has_a_link_of_its_own() -> None:
    toml = (
        '[[router]]\nname = "r"\n[device.d]\ncount = 2\n[device.d.eth0]\ngateway = "r"\nlink = "mobile-3g"\n'
    )
    assert list(conditions(toml)) == [("link", "d-0", "eth0"), ("link", "d-1", "eth0")]


def test_a_direction_may_be_a_preset() -> None:
    link = '{ latency_ms = 7, loss_pct = 3, down = "mobile-3g" }'
    toml = f'[[router]]\nname = "r"\n[device.d.eth0]\ngateway = "r"\nlink = {link}\n'
    assert conditions(toml) == {
        ("link", "d", "eth0"): Condition(Impairment(7, loss_pct=3), Impairment(100, 30, 2, 2000))
    }


ONE_SIDED = "[region.eu]\nlatencies = { us = 40 }\n[region.us]\n"
TWO_SIDED = "[region.eu]\nlatencies = { us = 40 }\n[region.us]\nlatencies = { eu = 50 }\n"
LOSS = "loss_pct = 1\nup = { rate_kbit = 500 }\n"
OVER = f"[[region-link]]\na = 'eu'\nb = 'us'\n{LOSS}"
BACK = f"[[region-link]]\na = 'us'\nb = 'eu'\n{LOSS}"
LINKS = {
    "one-sided": (ONE_SIDED, ("eu", "us"), Impairment(40), Impairment(40)),
    "two-sided": (TWO_SIDED, ("eu", "us"), Impairment(40), Impairment(50)),
    "a region link alone": (
        f"[region.eu]\n[region.us]\n{OVER}",
        ("eu", "us"),
        Impairment(loss_pct=1, rate_kbit=500),
        Impairment(loss_pct=1),
    ),
    "a region link over it": (
        TWO_SIDED + OVER,
        ("eu", "us"),
        Impairment(40, loss_pct=1, rate_kbit=500),
        Impairment(50, loss_pct=1),
    ),
    "a region link over it, in the other order of names": (
        TWO_SIDED + BACK,
        ("us", "eu"),
        Impairment(50, loss_pct=1, rate_kbit=500),
        Impairment(40, loss_pct=1),
    ),
    "a perfect link": (
        "[region.eu]\n[region.us]\n[[region-link]]\na = 'eu'\nb = 'us'\n",
        ("eu", "us"),
        Impairment(),
        Impairment(),
    ),
}


@pytest.mark.parametrize("case", LINKS)
def test_the_link_of_two_regions_is(case: str) -> None:
    toml, names, up, down = LINKS[case]
    assert conditions(toml) == {("regions", *names): Condition(up, down)}


def test_two_region_links_of_one_pair_go_one_over_the_other() -> None:
    more = "[[region-link]]\na = 'us'\nb = 'eu'\nloss_pct = 3\n"
    (condition,) = conditions(f"{TWO_SIDED}{OVER}{more}").values()
    assert condition == Condition(Impairment(50, loss_pct=3), Impairment(40, loss_pct=3, rate_kbit=500))


# Traces. A full Ethernet frame, 1514 bytes, goes at each of the milliseconds that a line names.

GOOD_TRACES = {
    "one frame in 10 ms": ("10\n", 1514 * 8 / 10),
    "three frames in 20 ms, two at once": ("5\n5\n20\n", 3 * 1514 * 8 / 20),
    "empty lines and blanks": ("\n 5 \r\n\n10\n\n", 2 * 1514 * 8 / 10),
    "one at the very start": ("0\n1\n", 2 * 1514 * 8),
    "no newline at the end": ("4", 1514 * 8 / 4),
}


@pytest.mark.parametrize("case", GOOD_TRACES)
def test_the_mean_rate_of_a_trace_of(case: str, tmp_path: Path) -> None:
    content, kbit = GOOD_TRACES[case]
    (tmp_path / "t.up").write_text(content)
    (tmp_path / "lab.toml").write_text(
        '[[router]]\nname = "r"\n[device.d.eth0]\ngateway = "r"\nlink = { up = { trace = "t.up" } }\n'
    )
    (device,) = read_lab(tmp_path / "lab.toml").spec.devices
    link = device.ifaces["eth0"].link
    assert link and link.up and link.up.trace
    assert link.up.trace.path == str(tmp_path / "t.up")
    assert link.up.trace.mean_kbit == pytest.approx(kbit)


def traced(path: str, folder: Path) -> LabSpec:
    table = tomllib.loads(f'[[router]]\nname = "r"\ndownlink = {{ trace = "{path}" }}\n')
    draft = draft_lab(table, "lab.toml", folder)
    if draft.problems:
        raise SpecError(draft.problems)
    return draft.spec


def test_a_trace_is_looked_for_beside_the_file_or_where_an_absolute_path_says(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "t").write_text("1\n")
    paths = ["sub/t", str(tmp_path / "sub" / "t"), "sub/../sub/t"]
    downlinks = [traced(path, tmp_path).routers[0].downlink for path in paths]
    traces = {each.trace.path for each in downlinks if each and each.trace}
    assert traces == {str(tmp_path / "sub" / "t")}


LINE = "accepted: whole milliseconds, none before that of the line above"
BAD_TRACES = {
    "no file": (None, "the trace {file} cannot be read: No such file or directory"),
    "no text": (b"\xff\xfe", "the trace {file} cannot be read: not a text file"),
    "no number": (b"1\n\nx\n", f"line 3 of the trace {{file}}: found 'x'; {LINE}"),
    "a fraction": (b"1.5\n", f"line 1 of the trace {{file}}: found '1.5'; {LINE}"),
    "a negative number": (b"-1\n", f"line 1 of the trace {{file}}: found '-1'; {LINE}"),
    "digits of another script": (
        "\u0663\n".encode(),
        f"line 1 of the trace {{file}}: found '\u0663'; {LINE}",
    ),
    "a step back": (b"5\n4\n", f"line 2 of the trace {{file}}: found '4'; {LINE}"),
    "nothing": (b"", "the trace {file} has no delivery after 0 ms; accepted: at least one"),
    "zeros alone": (b"0\n0\n", "the trace {file} has no delivery after 0 ms; accepted: at least one"),
}


@pytest.mark.parametrize("case", BAD_TRACES)
def test_no_trace_is(case: str, tmp_path: Path) -> None:
    content, message = BAD_TRACES[case]
    if content is not None:
        (tmp_path / "t").write_bytes(content)
    with pytest.raises(SpecError) as raised:
        traced("t", tmp_path)
    (problem,) = raised.value.problems
    assert problem.path == "router[0].downlink.trace"
    assert problem.message == message.format(file=tmp_path / "t")


def test_a_folder_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        traced(".", tmp_path)


def test_a_lab_without_conditions_has_no_wires() -> None:
    router = '[[router]]\nname = "r"\ndownlink = "lan"\n'
    toml = router + '[device.d.eth0]\ngateway = "r"\nlink = { latency_ms = 0 }\n'
    assert conditions(toml) == {}
    assert merged(PERFECT, LINK_PRESETS[LinkPreset.LAN]) == PERFECT
