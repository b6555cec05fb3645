"""Variables in texts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay.sim.spec.interpolate import NodeAddress, Part, Spellings, faults, parse, render, unparse
from patchbay.sim.spec.refs import Ref

NAMES = Spellings.of(
    {"server": ["eth0", "wlan-0"], "my-dev": ["eth0"], "dev": [], "dev-2": ["eth0"], "dev1": []},
    ["home", "ix"],
)


def values(part: NodeAddress | Ref) -> str:
    if isinstance(part, Ref):
        return f"<{part}>"
    return f"<{part.node}{'%' + part.iface if part.iface else ''}/{part.version}>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("http://${ip.server}:80/", "http://<server/4>:80/"),
        ("[${ip6.server}]", "[<server/6>]"),
        ("${ip.SERVER} ${ip.MY_DEV} ${ip.my-dev}", "<server/4> <my-dev/4> <my-dev/4>"),
        ("${ip.home} ${ip.HOME} ${ip.ix}", "<home/4> <home/4> <ix/4>"),
        ("$PATCHBAY_IP_SERVER:80", "<server/4>:80"),
        ("$PATCHBAY_IP6_SERVER", "<server/6>"),
        ("$NETSIM_IP_server $NETSIM_IP_MY_DEV $NETSIM_IP_my-dev", "<server/4> <my-dev/4> <my-dev/4>"),
        ("$PATCHBAY_IP_DEV-1", "<dev/4>-1"),
        ("$PATCHBAY_IP_dev-2", "<dev-2/4>"),
        ("$PATCHBAY_IP_DEV1", "<dev1/4>"),
        ("$PATCHBAY_IP_SERVER_ETH0 $NETSIM_IP_MY_DEV_ETH0", "<server%eth0/4> <my-dev%eth0/4>"),
        ("$PATCHBAY_IP6_SERVER_WLAN_0 $PATCHBAY_IP_DEV_2_ETH0", "<server%wlan-0/6> <dev-2%eth0/4>"),
        ("${PATCHBAY_IP_SERVER}1 ${NETSIM_IP_SERVER}", "<server/4>1 <server/4>"),
        ("${PATCHBAY_IP6_SERVER_ETH0}", "<server%eth0/6>"),
        ("${a.b}${a.c}", "<a.b><a.c>"),
        ("$HOME $$ $(id) $", "$HOME $$ $(id) $"),
        ("$${a.b} $${HOME}", "${a.b} ${HOME}"),
        ("$$PATCHBAY_IP_SERVER", "$<server/4>"),
    ],
)
def test_variables_are_replaced_and_nothing_else(text: str, expected: str) -> None:
    parts = parse(text, NAMES)
    assert faults(parts) == []
    assert render(parts, values) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$PATCHBAY_IP_SERVER_ETH1", r"unknown device in \$PATCHBAY_IP_SERVER_ETH1; .*"),
        ("${NETSIM_IP_SERVR}", r"unknown device in \$\{NETSIM_IP_SERVR\}; .*did you mean 'SERVER'\?"),
        ("${ip.servr}", r"unknown node in \$\{ip.servr\}; known: .*server; did you mean 'server'\?"),
        ("$PATCHBAY_IP_SERVR", r"unknown device in \$PATCHBAY_IP_SERVR; .*did you mean 'SERVER'\?"),
        ("$PATCHBAY_IP_SERVER2", r"unknown device in \$PATCHBAY_IP_SERVER2"),
        ("$PATCHBAY_IP_HOME", r"unknown device in \$PATCHBAY_IP_HOME"),
        ("$PATCHBAY_IP_", r"unknown device in \$PATCHBAY_IP_;"),
        ("${HOME}", r"unknown variable \$\{HOME\}; accepted: \$\{id.capture\}"),
        ("${a.b.c}", r"unknown variable \$\{a.b.c\}"),
        ("${}", r"unknown variable \$\{\}"),
        ("${a.b", r"found '\$\{' without its '\}'"),
        ("${binary.relay}", r"\$\{binary.relay\} is not available in this version of patchbay"),
    ],
)
def test_an_unknown_variable_is_a_fault(text: str, message: str) -> None:
    (found,) = faults(parse(text, NAMES))
    assert re.match(message, found), found


def test_every_wrong_variable_of_a_text_is_found() -> None:
    assert len(faults(parse("${x} ${a.b} ${ip.y} $NETSIM_IP_Z", NAMES))) == 3


def test_without_devices_it_says_so() -> None:
    assert faults(parse("${ip.a}", Spellings.of({}, []))) == ["unknown node in ${ip.a}; there is none"]


def test_a_name_as_it_is_wins_over_another_in_upper_case() -> None:
    names = Spellings.of({"a-b": [], "A_B": []}, [])
    assert parse("$PATCHBAY_IP_A_B", names) == (NodeAddress(4, "A_B", bare=True),)


PIECES = st.sampled_from(
    [
        "$",
        "$$",
        "{",
        "}",
        "${",
        "$${",
        "a",
        " ",
        "${ip.server}",
        "${a.b}",
        "$PATCHBAY_IP_SERVER",
        "$NETSIM_IP_my-dev",
        "$NETSIM_IP_SERVER_ETH0",
        "${PATCHBAY_IP6_SERVER}",
        "-2",
    ]
)


@given(st.lists(PIECES).map("".join))
def test_a_text_written_out_again_means_the_same(text: str) -> None:
    def meaning(parts: tuple[Part, ...]) -> tuple[str, list[str]]:
        return render(parts, values), faults(parts)

    parts = parse(text, NAMES)
    assert meaning(parse(unparse(parts), NAMES)) == meaning(parts)
