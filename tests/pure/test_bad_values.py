"""What a lab file may not say: keys, types and values, each with the whole message."""

import tomllib

import cattrs
import pytest

from patchbay.config.converter import make_converter, shared_converter, structure
from patchbay.config.draft import Draft
from patchbay.config.lab_file import draft_lab
from patchbay.errors import Problem, SpecError
from patchbay.layout.allocate import lay_out
from patchbay.model.lab import RouterPreset, RouterSpec
from patchbay.model.nat import Nat
from tests.pure.labs import problems_of

ROUTER = '[[router]]\nname = "r"\n'
DEVICE = '[device.d.eth0]\ngateway = "r"\n'
ROUTER_KEYS = ", ".join(
    (
        *("name", "preset", "upstream", "region", "nat", "nat_v6", "firewall", "ip_support", "mtu"),
        *("downstream_cidr", "downstream_cidr_v6", "downlink", "block_icmp_frag_needed", "port_mapping"),
    )
)
ROUTER_PRESETS = ", ".join(f"'{preset}'" for preset in RouterPreset)
NATS = ", ".join(f"'{nat}'" for nat in Nat) + ", or a table such as { filtering = 'endpoint-independent' }"
FIREWALL_KEYS = "block_inbound, outbound_tcp, outbound_udp"
NOT_YET = "is not available in this version of patchbay"
NO_ARRAY = "accepted: an array of tables, [[router]]"
NO_TABLE = "accepted: a table, [device.NAME]"

# A lab file, the path of its one problem, and the message.
BAD = {
    "an unknown key of a router": (
        ROUTER + 'upsteam = "x"',
        "router[0].upsteam",
        f"unknown key; accepted: {ROUTER_KEYS}; did you mean 'upstream'?",
    ),
    "an unknown key like no other": (
        ROUTER + "zzz = 1",
        "router[0].zzz",
        f"unknown key; accepted: {ROUTER_KEYS}",
    ),
    "an unknown key of a device": (
        f"{ROUTER}[device.d]\ncont = 1\n{DEVICE}",
        "device.d.cont",
        "unknown key; accepted: count, default_via, mtu, private, stun; did you mean 'count'?",
    ),
    "an unknown key of an interface": (
        ROUTER + DEVICE + 'gatewy = "r"',
        "device.d.eth0.gatewy",
        "unknown key; accepted: gateway, link, impair; did you mean 'gateway'?",
    ),
    "an unknown key of a region": (
        '[region.eu]\nname = "Europe"',
        "region.eu.name",
        "unknown key; accepted: latencies",
    ),
    "an unknown key at the top": (
        ROUTER + '[[routr]]\nname = "x"',
        "routr",
        "unknown key; accepted: router, device, region, region-link, addresses; did you mean 'router'?",
    ),
    "a key of a router that is to come": (ROUTER + "ra_enabled = false", "router[0].ra_enabled", NOT_YET),
    "a key of an interface that is to come": (
        ROUTER + DEVICE + "ra_enabled = false",
        "device.d.eth0.ra_enabled",
        NOT_YET,
    ),
    "a key of a region that is to come": (
        "[region.eu]\nra_enabled = false",
        "region.eu.ra_enabled",
        NOT_YET,
    ),
    "a key at the top that is to come": ("ra_enabled = false", "ra_enabled", NOT_YET),
    "a router without a name": (
        '[[router]]\npreset = "home"',
        "router[0].name",
        "is missing, and required",
    ),
    "an interface without a gateway": (
        ROUTER + "[device.d.eth0]",
        "device.d.eth0.gateway",
        "is missing, and required",
    ),
    "an integer for a name": (
        "[[router]]\nname = 3",
        "router[0].name",
        "found an integer (3); accepted: a string",
    ),
    "a boolean for a name": (
        ROUTER + "upstream = true",
        "router[0].upstream",
        "found a boolean (True); accepted: a string",
    ),
    "a date for a name": (
        ROUTER + "upstream = 2020-01-01",
        "router[0].upstream",
        "found date (2020-01-01); accepted: a string",
    ),
    "a fraction for an integer": (
        ROUTER + "mtu = 1500.0",
        "router[0].mtu",
        "found a number (1500.0); accepted: an integer",
    ),
    "a string for an integer": (
        ROUTER + 'mtu = "1500"',
        "router[0].mtu",
        "found '1500'; accepted: an integer",
    ),
    "a boolean for an integer": (
        ROUTER + "mtu = true",
        "router[0].mtu",
        "found a boolean (True); accepted: an integer",
    ),
    "an unknown preset": (
        ROUTER + 'preset = "hom"',
        "router[0].preset",
        f"found 'hom'; accepted: {ROUTER_PRESETS}; did you mean 'home'?",
    ),
    "an integer for a preset": (
        ROUTER + "nat = 1",
        "router[0].nat",
        f"found an integer (1); accepted: {NATS}",
    ),
    "an array for a preset": (
        ROUTER + 'nat = ["home"]',
        "router[0].nat",
        f"found an array; accepted: {NATS}",
    ),
    "a table for a preset of a router": (
        ROUTER + 'preset = { nat = "home" }',
        "router[0].preset",
        f"found a table; accepted: {ROUTER_PRESETS}",
    ),
    "an unknown key of a firewall": (
        ROUTER + 'firewall = { inbound = "all" }',
        "router[0].firewall.inbound",
        f"unknown key; accepted: {FIREWALL_KEYS}; did you mean 'block_inbound'?",
    ),
    "a network with bits of a host": (
        ROUTER + 'downstream_cidr = "10.0.0.1/8"',
        "router[0].downstream_cidr",
        "found '10.0.0.1/8' (10.0.0.1/8 has host bits set); accepted: a network such as '10.7.0.0/16'",
    ),
    "a network of the other IP version": (
        ROUTER + 'downstream_cidr_v6 = "10.0.0.0/8"',
        "router[0].downstream_cidr_v6",
        "found '10.0.0.0/8' (At least 3 parts expected in '10.0.0.0'); "
        "accepted: a network such as 'fd00:7::/48'",
    ),
    "an integer for a network": (
        ROUTER + "downstream_cidr = 10",
        "router[0].downstream_cidr",
        "found an integer (10); accepted: a network such as '10.7.0.0/16'",
    ),
    "one table for the array of routers": (
        '[router]\nname = "r"',
        "router",
        f"found a table; {NO_ARRAY}",
    ),
    "zero for the array of routers": ("router = 0", "router", f"found an integer (0); {NO_ARRAY}"),
    "an empty string for the array of routers": ('router = ""', "router", f"found ''; {NO_ARRAY}"),
    "an integer for a router": ("router = [3]", "router[0]", "found an integer (3); accepted: a table"),
    "an array for the table of devices": ("device = []", "device", f"found an array; {NO_TABLE}"),
    "false for the table of devices": ("device = false", "device", f"found a boolean (False); {NO_TABLE}"),
    "a string for the table of regions": (
        'region = "eu"',
        "region",
        "found 'eu'; accepted: a table, [region.NAME]",
    ),
    "an integer for a region": ("region.eu = 3", "region.eu", "found an integer (3); accepted: a table"),
    "an integer for a device": ("device.d = 3", "device.d", "found an integer (3); accepted: a table"),
    "an array for an interface": (
        ROUTER + '[[device.d.eth0]]\ngateway = "r"',
        "device.d.eth0",
        "found an array; accepted: a table",
    ),
    "an array for a key of a device": (
        f"{ROUTER}[device.d]\nmtu = [1500]\n{DEVICE}",
        "device.d.mtu",
        "found an array; accepted: an integer",
    ),
    "a count of none": (
        f"{ROUTER}[device.d]\ncount = 0\n{DEVICE}",
        "device.d.count",
        "found an integer (0); accepted: 1 to 10000",
    ),
    "a count beyond reason": (
        f"{ROUTER}[device.d]\ncount = 10001\n{DEVICE}",
        "device.d.count",
        "found an integer (10001); accepted: 1 to 10000",
    ),
    "true for a count": (
        f"{ROUTER}[device.d]\ncount = true\n{DEVICE}",
        "device.d.count",
        "found a boolean (True); accepted: an integer",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_lab_file_may_not_have(case: str) -> None:
    toml, path, message = BAD[case]
    assert problems_of(toml) == [(path, message)]


@pytest.mark.parametrize("case", BAD)
def test_reading_alone_finds_it_and_keeps_the_rest(case: str) -> None:
    table = tomllib.loads(BAD[case][0])
    draft = draft_lab(table, "lab.toml")
    assert [(problem.path, problem.message) for problem in draft.problems] == [BAD[case][1:]]
    with pytest.raises(SpecError) as raised:
        lay_out(draft_lab(table, "lab.toml"))
    assert raised.value.problems == draft.problems
    assert str(raised.value) == f"lab.toml:{BAD[case][1]}: {BAD[case][2]}"


def test_what_is_wrong_with_a_router_does_not_make_it_unknown_to_others() -> None:
    toml = ROUTER + "mtu = true\n" + DEVICE
    assert problems_of(toml) == [("router[0].mtu", "found a boolean (True); accepted: an integer")]


def test_where_no_router_can_be_read_none_is_missed() -> None:
    assert problems_of("router = 3\n" + DEVICE) == [("router", f"found an integer (3); {NO_ARRAY}")]


def test_no_problem_is_reported_twice() -> None:
    toml = f"{ROUTER}[device.d]\ncount = 500\n[device.d.eth0]\ngateway = 'x'"
    assert problems_of(toml) == [("device.d.eth0.gateway", "unknown router 'x'; known: r")]


def test_a_dict_of_python_may_hold_the_objects_themselves() -> None:
    router = RouterSpec("r", nat=Nat.HOME)
    draft = draft_lab({"router": (router,), "device": None, "region": None})
    assert draft == Draft(draft.spec)
    assert draft.spec.routers == (router,)


def test_an_error_that_is_no_ones_input_is_not_taken_for_one() -> None:
    with pytest.raises(ZeroDivisionError):
        structure(broken_converter(), 3, int)
    with pytest.raises(ZeroDivisionError):
        broken_structure()


def test_a_hook_that_is_registered_on_another_converter_is_not_in_the_shared_one() -> None:
    broken_converter()
    assert shared_converter() is shared_converter()
    assert structure(shared_converter(), 3, int) == 3


def broken_converter() -> cattrs.Converter:
    converter = make_converter()
    converter.register_structure_hook(int, lambda value, _: value / 0)
    return converter


def broken_structure() -> None:
    from patchbay.config import lab_file

    reader = lab_file._Reader()
    reader._converter = broken_converter()
    reader._read(3, int, "path", {})


def test_a_problem_without_a_path_is_its_message_alone() -> None:
    assert str(SpecError([Problem("", "is empty")])) == "is empty"
    assert str(SpecError([Problem("a", "b"), Problem("c", "d")])) == "a: b\nc: d"
