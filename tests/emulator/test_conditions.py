"""The relay's arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchbay.emulator.conditions import Conditions, parse, parse_trace
from patchbay.sandbox.inside.service import UsageError

ENDS = ["--far", "far", "--near", "near", "--seed", "7"]


def test_all_that_is_given_is_read_and_the_rest_does_not_apply() -> None:
    arguments = parse([*ENDS, "--up", "latency_ms=25.5", "limit=10", "--down", "loss_pct=100"])
    assert arguments[:3] == ("far", "near", 7)
    assert arguments.up == Conditions(latency_ms=25.5, limit=10)
    assert arguments.down == Conditions(loss_pct=100)
    assert parse([*ENDS]).up.transparent


@pytest.mark.parametrize(
    "word",
    [
        "latency_ms=1",
        "jitter_ms=1",
        "loss_pct=1",
        "reorder_pct=1",
        "duplicate_pct=1",
        "corrupt_pct=1",
        "rate_kbit=1",
    ],
)
def test_every_condition_makes_a_link_opaque(word: str) -> None:
    assert not parse([*ENDS, "--up", word, "burst_bytes=1", "buffer_bytes=1"]).up.transparent


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (ENDS[2:], "--far wants one value"),
        ([*ENDS[:4], "--seed", "x"], "--seed: 'x' is not a whole number"),
        (["far", *ENDS], "belongs to no option"),
        ([*ENDS, "--sideways"], "no option --sideways"),
        ([*ENDS, "--up", "--up"], "--up is given twice"),
        ([*ENDS, "--up", "latency_ms"], "not KEY=VALUE"),
        ([*ENDS, "--up", "colour=1"], "not KEY=VALUE of a known key"),
        ([*ENDS, "--up", "latency_ms=1", "latency_ms=2"], "latency_ms is given twice"),
        ([*ENDS, "--up", "latency_ms=soon"], "'soon' is not a number"),
        ([*ENDS, "--up", "latency_ms=nan"], "not a number"),
        ([*ENDS, "--up", "latency_ms=inf"], "not a number"),
        ([*ENDS, "--up", "latency_ms=-1"], "out of range"),
        ([*ENDS, "--up", "loss_pct=100.1"], "out of range"),
        ([*ENDS, "--up", "limit=1.5"], "not a whole number"),
        ([*ENDS, "--up", "limit=0"], "must be more than 0"),
        ([*ENDS, "--up", "rate_kbit=0"], "must be more than 0"),
        ([*ENDS, "--up", "rate_kbit=1", "burst_bytes=1"], "want buffer_bytes"),
        ([*ENDS, "--up", "rate_kbit=1", "buffer_bytes=1"], "wants burst_bytes"),
    ],
)
def test_what_means_nothing_is_refused(argv: list[str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        parse(argv)


def test_a_trace_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "cell.up"
    file.write_text("0\n3\n3\n\n10\n")
    arguments = parse([*ENDS, "--up", f"trace={file}", "buffer_bytes=9000"])
    assert arguments.up.trace == (0, 3, 3, 10)
    with pytest.raises(UsageError, match="exclude each other"):
        parse([*ENDS, "--up", f"trace={file}", "rate_kbit=1", "burst_bytes=1", "buffer_bytes=1"])
    with pytest.raises(FileNotFoundError):
        parse([*ENDS, "--up", "trace=/no/such/file", "buffer_bytes=9000"])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "must end after more than 0 ms"),
        ("0\n0\n", "must end after more than 0 ms"),
        ("1\nx\n", "cell:2: 'x' is not a whole number"),
        ("1\n-2\n", "cell:2: '-2' is not a whole number"),
        ("5\n4\n", "cell:2: earlier than the line before"),
    ],
)
def test_a_wrong_trace_is_refused_with_its_line(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        parse_trace(text, "cell")
