"""What is concluded from what was seen."""

from __future__ import annotations

import json
import math

import pytest

from patchbay.model.nat import Behavior
from patchbay.services.stun_messages import Response
from patchbay.testing.classify import _mapping
from patchbay.testing.probe import Answer, RetryTimes
from patchbay.testing.report import NatReport

EI, AD, APD = Behavior

A1P1, A1P2, A2P1, A2P2 = ((host, port) for host in ("192.0.2.1", "192.0.2.2") for port in (1, 2))
ONE_PORT_EACH = (A1P1, A2P2)
FOUR = (A1P1, A1P2, A2P1, A2P2)


@pytest.mark.parametrize(
    ("remotes", "ports", "expected"),
    [
        (FOUR, "aaaa", EI),
        (FOUR, "aabb", AD),
        (FOUR, "abcd", APD),
        (FOUR, "abbb", APD),
        # An answer that is missing takes nothing from what the others tell.
        (FOUR, "a-a-", EI),
        (FOUR, "aa-b", AD),
        (FOUR, "ab--", APD),
        (FOUR, "aa--", None),
        (FOUR, "a--b", None),
        (ONE_PORT_EACH, "aa", EI),
        (ONE_PORT_EACH, "ab", None),
        ((A1P1,), "a", None),
    ],
)
def test_mapping_is_judged_as_far_as_servers_answer(
    remotes: tuple[tuple[str, int], ...], ports: str, expected: Behavior | None
) -> None:
    seen = {
        remote: None if port == "-" else ("198.51.100.1", ord(port))
        for remote, port in zip(remotes, ports, strict=True)
    }
    finding = _mapping(seen)
    assert finding.behavior is expected
    assert (finding.note is None) == (expected is not None)


@pytest.mark.parametrize(
    ("outside", "expected"),
    [
        ((100, 101, 102, 103), "preserve"),
        ((100, 101, 50000, 103), "preserve"),
        ((2000, 2001, 2004, 2010), "sequential"),
        ((65534, 65535, 1024, 1026), "sequential"),
        ((2000, 2900, 2100, 2005), "block"),
        ((2000, 40000, 31000, 5000), "random"),
        ((2000, 2001), "unknown"),
        ((), "unknown"),
    ],
)
def test_ports_are_guessed_by_what_was_seen(outside: tuple[int, ...], expected: str) -> None:
    observed = tuple((100 + n, port) for n, port in enumerate(outside))
    report = NatReport(protocol="udp", nat=True, observed=observed)
    assert report.ports == expected
    assert report.port_preserved == (expected == "preserve")
    assert report.port_range == ((min(outside), max(outside)) if outside else None)


def test_a_report_speaks_the_words_of_the_field() -> None:
    assert str(NatReport(protocol="udp", blocked=True)) == "blocked: no answer from any server"
    assert str(NatReport(protocol="udp", filtering=EI)) == "no NAT, endpoint-independent filtering"
    report = NatReport(
        protocol="udp",
        nat=True,
        mapping=EI,
        filtering=APD,
        hairpin=False,
        observed=((7, 7),),
        udp_timeout=(29.25, 30.5),
    )
    assert str(report) == (
        "endpoint-independent mapping, address-and-port-dependent filtering, ports preserved, no hairpin, "
        "idle UDP mappings last 29.2 to 30.5 s"
    )


def test_a_report_as_json_has_no_infinite_number() -> None:
    report = NatReport(protocol="udp", nat=True, mapping=AD, udp_timeout=(330.0, math.inf))
    read = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert read["udp_timeout"] == [330.0, None]
    assert read["mapping"] == "address-dependent"
    assert read["name"].endswith("idle UDP mappings last more than 330 s")


@pytest.mark.parametrize(
    ("other", "believed"),
    [(A2P2, True), (A1P2, False), (A2P1, False), (("0.0.0.0", 0), False), (None, False)],
)
def test_a_second_address_is_another_address_and_another_port(
    other: tuple[str, int] | None, believed: bool
) -> None:
    answer = Answer(Response(bytes(12), ("192.0.2.9", 9), None, other), A1P1, 0.1)
    assert answer.other == (other if believed else None)


def test_silence_is_waited_for_by_the_length_of_the_path() -> None:
    assert RetryTimes.of(0.2, 5).asking == (0.2, 0.4, 0.8, 1.6, 3.2)
    assert RetryTimes.of(0.2, 3, 0.01).silence == (0.1, 0.1, 0.3)
    assert RetryTimes.of(0.2, 3, 0.5).silence == (0.1, 0.1, 2.0)
