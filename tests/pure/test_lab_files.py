"""Reading lab files: what is no lab file at all, all mistakes at once, and there and back."""

import re
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from patchbay.config.draft import Draft
from patchbay.config.lab_file import draft_lab, read_lab
from patchbay.errors import PatchbayError, SpecError
from patchbay.layout.allocate import lay_out
from patchbay.model.firewall import FirewallConfig
from patchbay.model.lab import Addresses, DeviceSpec, IfaceSpec, LabSpec, RouterPreset, RouterSpec
from patchbay.model.link import Impairment, LinkPreset
from patchbay.model.nat import NatConfig
from tests.pure.labs import QUICK, labs

EMPTY = "is empty; accepted: at least one [[router]]"

# Bytes of a file, and why it is none.
NO_LABS = {
    "an empty file": (b"", EMPTY),
    "a file of comments": (b"# nothing yet\n\n", EMPTY),
    "a binary file": (b"\x7fELF\x02\x01\x01\0\xff\xfe", "is not a text file; accepted: TOML in UTF-8"),
    "a file in another encoding": (
        '[[router]]\nname = "é"'.encode("latin-1"),
        "is not a text file; accepted: TOML in UTF-8",
    ),
    "a syntax error": (b"[[router]\n", "is not TOML: Expected ']]' at the end of an array declaration"),
    "a value without quotes": (b"a = home", "is not TOML: Invalid value (at line 1, column 5)"),
    "a key twice": (b"a = 1\na = 2", "is not TOML: Cannot overwrite a value (at end of document)"),
}


@pytest.mark.parametrize("case", NO_LABS)
def test_no_lab_can_be_read_from(case: str, tmp_path: Path) -> None:
    content, message = NO_LABS[case]
    file = tmp_path / "lab.toml"
    file.write_bytes(content)
    with pytest.raises(SpecError) as raised:
        lay_out(read_lab(file))
    (problem,) = raised.value.problems
    assert problem.path == ""
    assert problem.message.startswith(message)
    assert raised.value.source == str(file)
    assert str(file) in str(raised.value)


def test_a_file_that_is_not_there_is_no_lab(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=re.escape("cannot be read: No such file or directory")):
        lay_out(read_lab(tmp_path / "no.toml"))


def test_a_folder_is_no_lab(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=re.escape("cannot be read: Is a directory")):
        lay_out(read_lab(tmp_path))


def test_a_bad_input_is_an_error_of_patchbay() -> None:
    with pytest.raises(PatchbayError):
        lay_out(read_lab({"router": 3}))


EVERYTHING_WRONG = """
simulation = "x"

[region."a/b"]
[region.eu]
latencies = { us = 40 }
ra_enabled = false

[[region-link]]
a = "eu"
loss_pct = 200

[[router]]
name = "home"
preset = "hom"
mtu = 9
downlink = { latency_ms = -1, up = { jitter = 3 } }

[[router]]
name = "home"
upsteam = "isp"

[[router]]
preset = "home"

[[router]]
name = "loop"
upstream = "loop"

[[router]]
name = "old"
region = "us"
nat = { mapping = "eim", port_allocation = "block", hairpin = 1 }
firewall = { outbound_tcp = [0] }
block_icmp_frag_needed = "no"

[[router]]
name = "four"
downstream_cidr = "26.0.0.0/16"

[[router]]
name = "six"
upstream = "four"
ip_support = "v6-only"

[device.a]
count = 0
[device.a.eth0]
gateway = "home"
impair = "wify"

[device.b]
default_via = "eth1"
[device.b.an-interface-name-too-long]
gateway = "nobody"

[device.ix.eth0]
gateway = "four"

[device.c]
"""

PROBLEMS = """
router[0].preset: found 'hom'; accepted: {presets}; did you mean 'home'?
router[0].downlink.up.jitter: unknown key; accepted: {link_keys}; did you mean 'jitter_ms'?
router[0].downlink.latency_ms: found -1; accepted: 0 to 60 000 ms
router[1].upsteam: unknown key; accepted: {keys}; did you mean 'upstream'?
router[2].name: is missing, and required
router[4].nat.mapping: found 'eim'; accepted: {behaviors}
router[4].nat.port_allocation: found 'block'; accepted: {ports}; did you mean 'block:1008'?
router[4].nat.hairpin: found 1; accepted: true or false
router[4].firewall.outbound_tcp: found [0]; accepted: "all", "none", or a list of ports from 1 to 65535
router[4].block_icmp_frag_needed: found 'no'; accepted: true or false
device.a.eth0.impair: found 'wify'; {wify}
device.a.count: found an integer (0); accepted: 1 to 10000
region.eu.ra_enabled: is not available in this version of patchbay
region-link[0].b: is missing, and required
region-link[0].loss_pct: found 200; accepted: 0 to 100 %
simulation: unknown key; accepted: router, device, region, region-link, addresses
region.a/b: name 'a/b' contains a slash or NUL, and names a folder of the run
router[0].mtu: found 9; accepted: 68 to 65535 bytes
router[1].name: duplicate name 'home': it is also the name of router[0]
router[3].upstream: router loop: loop -> loop; accepted: a chain that ends at the exchange
device.b.default_via: unknown interface 'eth1'; known: an-interface-name-too-long
device.b.an-interface-name-too-long: interface name 'an-interface-name-too-long' {long}
device.b.an-interface-name-too-long.gateway: unknown router 'nobody'; known: {routers}
device.ix: 'ix' is the name of the exchange; accepted: any other name
device.c: a device needs an interface; accepted: at least one [device.NAME.IFACE] with a gateway
router[5].downstream_cidr: 26.0.0.0/16 overlaps 26.0.0.0/16 of the exchange {own}
router[6].ip_support: found 'v6-only', but 'four' above it is 'v4-only': no IP version in common
"""


def test_all_problems_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(EVERYTHING_WRONG, encoding="utf-8")
    with pytest.raises(SpecError) as raised:
        lay_out(read_lab(file))
    links = ", ".join(f"'{preset}'" for preset in LinkPreset)
    expected = PROBLEMS.format(
        presets=", ".join(f"'{preset}'" for preset in RouterPreset),
        keys=", ".join(field.name for field in RouterSpec.__attrs_attrs__),
        behaviors="'endpoint-independent', 'address-dependent', 'address-and-port-dependent'",
        ports="'preserve', 'random', 'sequential', 'block:N' with N from 1 to 64512",
        link_keys=", ".join(field.name for field in Impairment.__attrs_attrs__),
        wify=f"accepted: {links}, or a table such as {{ latency_ms = 20 }}; did you mean 'wifi'?",
        long="has 26 bytes; accepted: 1 to 15",
        routers="four, home, loop, old, six",
        own="in the same routing domain; accepted: a network of its own",
    )
    assert str(raised.value).splitlines() == [f"{file}:{line}" for line in expected.split("\n") if line]
    assert len(raised.value.problems) == 27


# There and back


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def value(wished: object) -> str:
    if isinstance(wished, Impairment | NatConfig | FirewallConfig):
        said = wished.set_values() if isinstance(wished, Impairment) else attrs.asdict(wished, recurse=False)
        return "{ " + ", ".join(f"{key} = {value(each)}" for key, each in said.items()) + " }"
    if isinstance(wished, tuple):
        return f"[{', '.join(map(value, wished))}]"
    if isinstance(wished, bool):
        return str(wished).lower()
    return str(wished) if isinstance(wished, int | float) else quoted(str(wished))


def table(header: str, **values: Any) -> str:
    said = {key: wished for key, wished in values.items() if wished is not None}
    return "\n".join([header, *(f"{key} = {value(wished)}" for key, wished in said.items()), ""])


def written(spec: LabSpec) -> str:
    """The lab as a TOML file."""
    parts = [f"addresses = {quoted(spec.addresses)}\n"] if spec.addresses else []
    parts += [f"[region.{quoted(region.name)}]\n" for region in spec.regions]
    for link in spec.region_links:
        parts.append(table("[[region-link]]", a=link.a, b=link.b, **link.condition.set_values()))
    for router in spec.routers:
        fields = {field.name: getattr(router, field.name) for field in RouterSpec.__attrs_attrs__}
        parts.append(table("[[router]]", **fields))
    for device in spec.devices:
        name = f"device.{quoted(device.name)}"
        parts.append(table(f"[{name}]", default_via=device.default_via, mtu=device.mtu))
        for iface, to in device.ifaces.items():
            parts.append(table(f"[{name}.{quoted(iface)}]", gateway=to.router, link=to.link))
    return "".join(parts)


@QUICK
@given(labs(), st.sampled_from([None, *Addresses]))
def test_a_lab_written_as_toml_is_read_back_as_it_was(spec: LabSpec, addresses: Addresses | None) -> None:
    spec = evolve(spec, addresses=addresses)
    assert draft_lab(tomllib.loads(written(spec))).spec == spec


def test_a_count_makes_numbered_devices_that_know_their_number() -> None:
    spec = read_lab({"device": {"d": {"count": 2, "mtu": 1400, "eth0": {"gateway": "r"}}}}).spec
    ifaces = {"eth0": IfaceSpec("r")}
    assert spec.devices == (
        DeviceSpec("d-0", ifaces, None, 1400, counted_from="d"),
        DeviceSpec("d-1", ifaces, None, 1400, counted_from="d"),
    )


def test_an_empty_dict_is_a_lab_without_anything() -> None:
    assert read_lab({}) == Draft(LabSpec())


def test_regions_come_into_being_by_being_named() -> None:
    spec = read_lab(
        {
            "region": {"us": {"latencies": {"eu": 80}}},
            "router": [{"name": "a", "region": "asia"}, {"name": "b", "region": "us"}],
            "region-link": [{"a": "africa", "b": "eu", "latency_ms": 5}],
        }
    ).spec
    assert [region.name for region in spec.regions] == ["us", "asia", "eu", "africa"]


@pytest.mark.parametrize(("value", "found"), [("global ", "'global '"), (5, "an integer (5)")])
def test_wrong_addresses_hide_no_other_mistake(value: object, found: str) -> None:
    table = {"addresses": value, "device": {"d": {"eth0": {"gateway": "nobody"}}}}
    with pytest.raises(SpecError) as raised:
        lay_out(read_lab(table))
    told = [(problem.path, problem.message) for problem in raised.value.problems]
    assert [path for path, _ in told] == ["addresses", "device.d.eth0.gateway"]
    assert told[0][1].startswith(f"found {found}; accepted: 'global', 'documentation'")
