"""The converter itself: exact types, and the path of every problem."""

from datetime import date
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from attrs import field, frozen
from cattrs.errors import IterableValidationError

from patchbay.config.converter import Unacceptable, collect, describe_value, make_converter, structure
from patchbay.errors import Problem, SpecError
from patchbay.model.lab import RouterSpec
from patchbay.model.nat import Nat


@frozen
class Inner:
    number: float = 0.0
    flag: bool = False


@frozen
class Outer:
    inner: Inner = field(factory=Inner)
    inners: tuple[Inner, ...] = ()
    words: tuple[str, ...] = ()
    network: IPv4Network | None = None


def problems(value: object, wanted: type = Outer) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as raised:
        structure(make_converter(), value, wanted)
    return [(problem.path, problem.message) for problem in raised.value.problems]


def test_what_fits_is_taken_as_it_is() -> None:
    network, inner = IPv4Network("192.0.2.0/24"), Inner(1.5, True)
    wished: dict[str, Any] = {
        "inner": {"number": 1.5, "flag": True},
        "inners": [{}, inner],
        "words": ("a", "b"),
        "network": network,
    }
    assert structure(make_converter(), wished, Outer) == Outer(inner, (Inner(), inner), ("a", "b"), network)


def test_an_integer_is_a_number_and_becomes_a_fraction() -> None:
    number = structure(make_converter(), {"number": 3}, Inner).number
    assert (number, type(number)) == (3.0, float)


def test_members_of_an_enum_and_their_names_are_equal() -> None:
    for nat in ("home", Nat.HOME):
        assert structure(make_converter(), {"name": "r", "nat": nat}, RouterSpec).nat is Nat.HOME


def test_networks_may_be_given_as_such() -> None:
    six = IPv6Network("fd00::/48")
    wished = {"name": "r", "downstream_cidr": None, "downstream_cidr_v6": six}
    assert structure(make_converter(), wished, RouterSpec).downstream_cidr_v6 is six


BAD = {
    "a string for a number": ({"inner": {"number": "1"}}, "inner.number", "found '1'; accepted: a number"),
    "true for a number": (
        {"inner": {"number": True}},
        "inner.number",
        "found a boolean (True); accepted: a number",
    ),
    "one for a boolean": (
        {"inner": {"flag": 1}},
        "inner.flag",
        "found an integer (1); accepted: true or false",
    ),
    "a string for an array": ({"words": "ls -l"}, "words", "found 'ls -l'; accepted: an array"),
    "a table for an array": ({"words": {"a": 1}}, "words", "found a table; accepted: an array"),
    "a number in an array of strings": (
        {"words": ["a", 1]},
        "words[1]",
        "found an integer (1); accepted: a string",
    ),
    "an unknown key in an array of tables": (
        {"inners": [{}, {"numbr": 1}]},
        "inners[1].numbr",
        "unknown key; accepted: number, flag; did you mean 'number'?",
    ),
    "a number for a table": ({"inner": 3}, "inner", "found an integer (3); accepted: a table"),
    "nothing for a table": ({"inner": None}, "inner", "found NoneType (None); accepted: a table"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_with_its_path_is(case: str) -> None:
    value, path, message = BAD[case]
    ((found_path, found),) = problems(value)
    assert (found_path, found) == (path, message)


def test_every_problem_is_kept() -> None:
    value = {"inner": {"number": "x", "flag": "y", "z": 0}, "words": [1, "a", 2], "more": 1}
    assert [path for path, _ in problems(value)] == [
        "inner.number",
        "inner.flag",
        "inner.z",
        "words[0]",
        "words[2]",
        "more",
    ]


def test_a_part_that_is_read_by_other_means_adds_its_problems_below_its_path() -> None:
    @frozen
    class Duration:
        text: str

    @frozen
    class Step:
        wait: Duration

    def refuse(value: object, _: object) -> Duration:
        raise SpecError([Problem("unit", f"no unit in {value}"), Problem("", "no duration")])

    converter = make_converter()
    converter.register_structure_hook(Duration, refuse)
    with pytest.raises(SpecError) as raised:
        structure(converter, {"wait": "3"}, Step, "sim.toml")
    assert str(raised.value) == "sim.toml:wait.unit: no unit in 3\nsim.toml:wait: no duration"


def test_of_another_error_nothing_is_collected() -> None:
    assert collect(KeyError("x")) == []
    assert collect(Unacceptable("no"), "a.b") == [Problem("a.b", "no")]


def test_an_error_without_a_place_of_its_own_has_that_of_the_whole() -> None:
    error = Unacceptable("no")
    error.add_note("a remark")
    assert collect(IterableValidationError("array", [error], list), "a") == [Problem("a", "no")]


VALUES = {
    "'home'": "home",
    "an integer (3)": 3,
    "a number (1.5)": 1.5,
    "a boolean (False)": False,
    "an array": [1, 2],
    "a table": {"a": 1},
    "date (2026-01-02)": date(2026, 1, 2),
}


@pytest.mark.parametrize("text", VALUES)
def test_a_value_is_described_as(text: str) -> None:
    assert describe_value(VALUES[text]) == text
