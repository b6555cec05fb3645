"""What may be called how, and what the kernel calls it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay.model.names import (
    env_name,
    iface_name_problem,
    node_name_problem,
    slug,
    unique_name,
)
from tests.pure.labs import QUICK, problems_of

READ_AS_SOMETHING_ELSE = (
    "contains a character that the kernel or its tools read as something else; "
    "not accepted: a leading '-', white space, / : % ' \" \\ # * @"
)

BAD_NODES = {
    "": "name '' has 0 bytes; accepted: 1 to 63",
    "a" * 64: f"name {'a' * 64!r} has 64 bytes; accepted: 1 to 63",
    "é" * 32: f"name {'é' * 32!r} has 64 bytes; accepted: 1 to 63",
    "a/b": "name 'a/b' contains a slash or NUL, and names a folder of the run",
    "a\0b": "name 'a\\x00b' contains a slash or NUL, and names a folder of the run",
    "-a": "name '-a' starts with '-', which commands would read as an option",
    ".": "name '.' is only dots, and names a folder of the run",
    "...": "name '...' is only dots, and names a folder of the run",
    "a\nb": "name 'a\\nb' contains a control character",
    "a\x7fb": "name 'a\\x7fb' contains a control character",
    "a\u2028b": "name 'a\\u2028b' contains a control character",
    "\ud800": "name '\\ud800' contains a control character",
}
GOOD_NODES = ["a", "a b", "a.b", ".a", "a-", 'Grandma\'s "box"', "路由器", "é" * 31, "a" * 63, "$(id)", "lo"]

BAD_IFACES = {
    "": "interface name '' has 0 bytes; accepted: 1 to 15",
    "a" * 16: f"interface name {'a' * 16!r} has 16 bytes; accepted: 1 to 15",
    "é" * 8: f"interface name {'é' * 8!r} has 16 bytes; accepted: 1 to 15",
    "\ud800": f"interface name '\\ud800' {READ_AS_SOMETHING_ELSE}",
    **{
        name: f"interface name {name!r} is taken by the kernel"
        for name in (".", "..", "lo", "all", "default")
    },
    **{
        name: f"interface name {name!r} {READ_AS_SOMETHING_ELSE}"
        for name in (
            "-a",
            "a b",
            "a\tb",
            "a/b",
            "a:1",
            "a%d",
            "a'b",
            'a"b',
            "a\\b",
            "a#b",
            "a*",
            "a@b",
            "a\x01",
        )
    },
}
BAD_NODES |= {
    name: f"name {name!r} is the host name of the node too, and programs read it as an address"
    for name in ("localhost", "LocalHost", "192.0.2.1", "::1")
}
GOOD_IFACES = ["eth0", "eth0.5", "a" * 15, "é" * 7, "wlp3s0", "a-b", "1", "if10", "wan"]


def readable(name: str) -> str:
    return ascii(name)[1:-1][:20] or "empty"


@pytest.mark.parametrize("name", BAD_NODES, ids=readable)
def test_a_node_may_not_be_called(name: str) -> None:
    assert node_name_problem(name) == BAD_NODES[name]


@pytest.mark.parametrize("name", GOOD_NODES, ids=readable)
def test_a_node_may_be_called(name: str) -> None:
    assert node_name_problem(name) is None


@pytest.mark.parametrize("name", BAD_IFACES, ids=readable)
def test_an_interface_may_not_be_called(name: str) -> None:
    assert iface_name_problem(name) == BAD_IFACES[name]


@pytest.mark.parametrize("name", GOOD_IFACES, ids=readable)
def test_an_interface_may_be_called(name: str) -> None:
    assert iface_name_problem(name) is None


def test_names_are_checked_wherever_a_lab_file_has_them() -> None:
    toml = """
        region."a/b" = {}
        [[router]]
        name = "-r"
        [[router]]
        name = "ix"
        [[router]]
        name = "s"
        [device."...".eth0]
        gateway = "s"
        [device.d."e:0"]
        gateway = "s"
    """
    assert problems_of(toml) == [
        ("region.a/b", "name 'a/b' contains a slash or NUL, and names a folder of the run"),
        ("router[0].name", "name '-r' starts with '-', which commands would read as an option"),
        ("router[1].name", "'ix' is the name of the exchange; accepted: any other name"),
        ("device....", "name '...' is only dots, and names a folder of the run"),
        ("device.d.e:0", f"interface name 'e:0' {READ_AS_SOMETHING_ELSE}"),
    ]


def test_a_counted_device_needs_room_for_its_number() -> None:
    name = "d" * 62
    toml = f"[[router]]\nname = 'r'\n[device.{name}]\ncount = 2\n[device.{name}.eth0]\ngateway = 'r'"
    assert problems_of(toml) == [
        (f"device.{name}", f"name '{name}-{number}' has 64 bytes; accepted: 1 to 63") for number in (0, 1)
    ]


SLUGS = {
    "home": "home",
    "a b": "a-b",
    "eth0.5": "eth0-5",
    "路由器": "node",
    "--a--": "a",
    "$(reboot); id": "reboot-id",
    "a234567890 b": "a234567890",
    "a_B-9": "a_B-9",
}


@pytest.mark.parametrize("name", SLUGS, ids=readable)
def test_the_slug_of(name: str) -> None:
    assert slug(name, 11) == SLUGS[name]


@QUICK
@given(st.text(), st.integers(4, 20))
def test_a_slug_is_safe_in_every_command(name: str, limit: int) -> None:
    made = slug(name, limit)
    assert 1 <= len(made) <= limit
    assert re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_-]*", made)


@QUICK
@given(st.lists(st.sampled_from(["a", "a-2", "abcdefgh", "abcdefgi", "abcdef-2"])))
def test_unique_names_are_unique_and_short(wanted: list[str]) -> None:
    taken: list[str] = []
    for name in wanted:
        taken.append(unique_name(name, taken, 8))
    assert len({*taken}) == len(taken)
    assert all(len(name) <= 8 for name in taken)


def test_a_unique_name_is_the_wanted_one_with_the_first_free_number() -> None:
    assert unique_name("a", [], 8) == "a"
    assert unique_name("a", ["a", "a-2"], 8) == "a-3"
    assert unique_name("abcdefgh", ["abcdefgh"], 8) == "abcdef-2"
    assert unique_name("abcdefgh", ["abcdefgh", *(f"abcdef-{n}" for n in range(2, 10))], 8) == "abcde-10"


@pytest.mark.parametrize(
    ("name", "variable"), [("home", "HOME"), ("a-b.c d", "A_B_C_D"), ("café", "CAF_"), ("straße", "STRASSE")]
)
def test_the_environment_variable_of(name: str, variable: str) -> None:
    assert env_name(name) == variable
