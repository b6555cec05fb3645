"""What is taken out of a command's output."""

import json

import pytest
import trio
import trio.testing

from patchbay.sim.live.output import StepOutput
from patchbay.sim.spec.captures import Capture, NotJson, Parser, Pipe, pick, scan_document, scan_line

PORT = Capture(regex=r"port (\d+)")


def found_in(capture: Capture, line: str) -> str | None:
    found = scan_line({"it": capture}, Pipe.STDOUT, 1, line)
    return found["it"].value if found else None


@pytest.mark.parametrize(
    ("regex", "line", "value"),
    [
        (r"port (\d+)", "on port 80 and port 81", "80"),
        (r"port \d+", "on port 80", "port 80"),
        (r"(?:port (\d+)|ready)", "ready", "ready"),
        (r"(a)(b)", "ab", "a"),
        (r"x*", "none", ""),
        (r"port", "pörtchen", None),
    ],
)
def test_a_regex_gives_its_first_group_or_the_whole_match(regex: str, line: str, value: str | None) -> None:
    assert found_in(Capture(regex=regex), line) == value


def test_a_capture_reads_only_its_own_pipe() -> None:
    captures = {"out": PORT, "err": Capture(pipe=Pipe.STDERR, regex=r"port (\d+)")}
    assert scan_line(captures, Pipe.STDERR, 1, "port 1").keys() == {"err"}
    captures = {"out": Capture(pick="a"), "err": Capture(pipe=Pipe.STDERR, pick="a")}
    assert scan_document(captures, Pipe.STDERR, '{"a": 1}').keys() == {"err"}


def test_a_captured_value_remembers_its_line() -> None:
    assert scan_line({"p": PORT}, Pipe.STDOUT, 7, "port 80")["p"].origin == "stdout line 7: port 80"


DOCUMENT = {"end": {"sum": {"bytes": 12, "rate": 1.5, "ok": True, "no": None}, "list": ["x", {"y": "z"}]}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".end.sum.bytes", 12),
        ("end.sum.bytes", 12),
        (".end.list.0", "x"),
        (".end.list.1.y", "z"),
        (".end.list.2", None),
        (".end.nothing", None),
        (".end.sum.bytes.more", None),
        (".end.list.-1", None),
    ],
)
def test_a_path_picks_a_part_of_a_document(path: str, value: object) -> None:
    picked = pick(DOCUMENT, path)
    assert (picked[0] if picked else None) == value


def scan(capture: Capture, document: object) -> str | None:
    found = scan_document({"it": capture}, Pipe.STDOUT, json.dumps(document))
    return found["it"].value if found else None


@pytest.mark.parametrize(
    ("path", "text"),
    [("end.sum.bytes", "12"), ("end.sum.rate", "1.5"), ("end.sum.ok", "true"), ("end.list.0", "x"),
     ("end.list", '["x", {"y": "z"}]'), ("end.sum.no", "null"), ("end.none", None)],
)  # fmt: skip
def test_a_picked_value_is_a_text(path: str, text: str | None) -> None:
    assert scan(Capture(pick=path), DOCUMENT) == text


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ({"kind": "a"}, True),
        ({"kind": "b"}, False),
        ({"kind": "a", "n": 1}, True),
        ({"n": True}, False),
        ({"flag": 1}, False),
        ({"inner": {"deep": "x"}}, True),
        ({"inner": {"deep": "y"}}, False),
        ({"missing": "x"}, False),
    ],
)
def test_match_lets_through_only_what_has_these_values(match: dict[str, object], fits: bool) -> None:
    document = {"kind": "a", "n": 1, "flag": True, "inner": {"deep": "x", "n": 1}, "value": "v"}
    assert scan(Capture(match=match, pick="value"), document) == ("v" if fits else None)


def test_of_an_array_the_last_element_that_matches_counts() -> None:
    document = [{"if": "lo", "n": 1}, {"if": "eth0", "n": 2}, {"if": "eth0", "n": 3}, 4]
    assert scan(Capture(match={"if": "eth0"}, pick="n"), document) == "3"
    assert scan(Capture(pick=".1.n"), document) == "2"


def test_what_is_not_json_is_shown() -> None:
    with pytest.raises(NotJson, match=r"stdout is not JSON: .* begins with 'iperf3: error'"):
        scan_document({}, Pipe.STDOUT, "iperf3: error")


@pytest.mark.parametrize(
    ("capture", "parser", "problem"),
    [
        (Capture(), Parser.TEXT, "accepted: either `regex` or `pick`"),
        (Capture(regex="a", pick="b"), Parser.JSON, "accepted: either `regex` or `pick`"),
        (Capture(regex="("), Parser.TEXT, "regex: found '(', which is no regular expression: missing )"),
        (Capture(pick="a"), Parser.TEXT, 'pick: needs JSON; accepted: with parser = "json"'),
        (Capture(regex="a", match={"a": 1}), Parser.TEXT, "match: chooses among JSON documents"),
    ],
)
def test_a_capture_that_cannot_work_is_a_problem(capture: Capture, parser: Parser, problem: str) -> None:
    (found,) = capture.problems(parser)
    assert str(found).startswith(problem)


# The output of a command while it comes


def output_of(parser: Parser = Parser.TEXT, **captures: Capture) -> tuple[StepOutput, list[bytes]]:
    lines: list[bytes] = []
    return StepOutput(parser, captures, {}, lambda _, line: lines.append(line)), lines


async def test_lines_are_put_together_however_they_arrive() -> None:
    output, lines = output_of(port=PORT)
    for byte in "größer\r\nport 80\nport 81".encode():
        output.feed(Pipe.STDOUT, bytes([byte]))
    assert output.captured["port"].value == "80"
    output.end()
    assert lines == ["größer\r".encode(), b"port 80", b"port 81"]
    assert output.captured["port"].value == "81"
    assert output.tail(Pipe.STDOUT) == "größer\nport 80\nport 81"


async def test_waiting_for_a_capture_ends_when_it_is_printed(autojump_clock: trio.testing.MockClock) -> None:
    output, _ = output_of(port=PORT)
    began = trio.current_time()

    async def print_later() -> None:
        await trio.sleep(1)  # by the clock of the test, which jumps ahead
        output.feed(Pipe.STDOUT, b"nothing yet\n")
        await trio.sleep(1)  # by the clock of the test, which jumps ahead
        output.feed(Pipe.STDOUT, b"port 80\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(print_later)
        captured = await output.wait_for("port")
    assert captured and captured.value == "80"
    assert trio.current_time() - began == pytest.approx(2, abs=0.01)


async def test_waiting_for_a_capture_ends_with_the_command() -> None:
    output, _ = output_of(port=PORT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.checkpoint)
        output.end()
        assert await output.wait_for("port") is None


async def test_json_is_read_as_a_whole_at_the_end() -> None:
    output, _ = output_of(Parser.JSON, n=Capture(pick="n"), line=Capture(regex=r'"(n)"'))
    output.feed(Pipe.STDOUT, b'{\n "n":\n')
    assert output.captured.keys() == {"line"}
    output.feed(Pipe.STDOUT, b" 5}")
    output.end()
    assert output.captured["n"].value == "5"
    assert output.fault == ""


async def test_output_that_should_be_json_and_is_not_is_a_fault() -> None:
    output, _ = output_of(Parser.JSON)
    output.feed(Pipe.STDERR, b"whatever\n")
    output.end()
    assert output.fault.startswith("stdout is not JSON")


async def test_json_may_come_by_stderr() -> None:
    output, _ = output_of(Parser.JSON, n=Capture(pipe=Pipe.STDERR, pick="n"))
    output.feed(Pipe.STDOUT, b"hello\n")
    output.feed(Pipe.STDERR, b'{"n": 1}\n')
    output.end()
    assert (output.fault, output.captured["n"].value) == ("", "1")


async def test_only_the_last_lines_are_kept_as_evidence() -> None:
    output, _ = output_of()
    output.feed(Pipe.STDERR, b"".join(b"line %d\n" % n for n in range(100)))
    assert output.tail(Pipe.STDERR).splitlines() == [f"line {n}" for n in range(90, 100)]
