"""NATs and firewalls as users write them: names, tables and objects that are equal, and every wrong value."""

import tomllib
from typing import Any

import attrs
import pytest

from patchbay.config.converter import shared_converter, structure
from patchbay.errors import SpecError
from patchbay.model.firewall import (
    FIREWALL_PRESETS,
    Firewall,
    FirewallConfig,
    firewall_config_of,
    firewall_named,
)
from patchbay.model.lab import RouterSpec
from patchbay.model.nat import NAT_PRESETS, Behavior, Nat, NatConfig, PortAllocation, config_of, named
from patchbay.model.presets import resolve

NAT, FIREWALL = Nat | NatConfig, Firewall | FirewallConfig
BEHAVIORS = "accepted: 'endpoint-independent', 'address-dependent', 'address-and-port-dependent'"
PORTS = "accepted: 'preserve', 'random', 'sequential', 'block:N' with N from 1 to 64512"
SECONDS = "accepted: whole seconds from 1 to 2000000"
NAT_KEYS = ", ".join(field.name for field in attrs.fields(NatConfig))
PROTOCOLS = "accepted: a list of 'tcp', 'udp', or both"
POLICY = 'accepted: "all", "none", or a list of ports from 1 to 65535'


def read(toml: str) -> RouterSpec:
    """The router of which a lab file says that."""
    return structure(shared_converter(), {"name": "r", **tomllib.loads(toml)}, RouterSpec)


def problems(toml: str) -> list[str]:
    with pytest.raises(SpecError) as raised:
        read(toml)
    return [str(problem) for problem in raised.value.problems]


def plain(config: NatConfig | FirewallConfig) -> dict[str, Any]:
    """The configuration as a dict of strings, numbers and lists."""
    fields = attrs.asdict(config, recurse=False)
    return {
        key: list(value) if isinstance(value, tuple) else str(value) if not isinstance(value, int) else value
        for key, value in fields.items()
    }


# The presets


# Mapping, filtering, ports, hairpin, udp, stream, tcp: the table of docs/behaviour.md.
ROWS = {
    "home": ("EI", "APD", "preserve", False, 30, 300, 7440),
    "full-cone": ("EI", "EI", "preserve", True, 30, 300, 7440),
    "address-restricted": ("EI", "AD", "preserve", False, 30, 300, 7440),
    "corporate": ("APD", "APD", "random", False, 30, 120, 3600),
    "cloud-nat": ("APD", "APD", "random", False, 30, 350, 350),
    "cgnat": ("EI", "EI", "block:1008", True, 30, 300, 7440),
    "symmetric-predictable": ("APD", "APD", "sequential", False, 30, 120, 3600),
}
FIREWALLS = {
    "none": (False, "all", "all"),
    "block-inbound": (True, "all", "all"),
    "corporate": (True, (80, 443), (53,)),
    "captive-portal": (True, "all", (53,)),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_nat_preset_is_the_row_of_the_table(name: str) -> None:
    config = config_of(Nat(name))
    assert config and config.protocols == ("tcp", "udp")
    mapping, filtering, ports, *rest = attrs.astuple(config, recurse=False)[:7]
    assert (mapping.short, filtering.short, str(ports), *rest) == ROWS[name]


@pytest.mark.parametrize("name", FIREWALLS)
def test_the_firewall_preset_is_the_row_of_the_table(name: str) -> None:
    assert attrs.astuple(firewall_config_of(Firewall(name))) == FIREWALLS[name]


def test_the_tables_have_all_presets() -> None:
    assert {"none", *ROWS} == {*Nat}
    assert {*FIREWALLS} == {*Firewall}
    assert config_of(Nat.NONE) is None


def test_the_defaults_are_those_of_home() -> None:
    assert NatConfig() == NAT_PRESETS[Nat.HOME]
    assert FirewallConfig() == FIREWALL_PRESETS[Firewall.NONE]


# Equal


@pytest.mark.parametrize("preset", NAT_PRESETS)
def test_a_nat_by_its_name_enum_table_or_object_is_the_same(preset: Nat) -> None:
    config = NAT_PRESETS[preset]
    for wished in (str(preset), preset, plain(config), config, NatConfig(**plain(config))):
        assert structure(shared_converter(), wished, NAT) is preset  # type: ignore[arg-type]
        assert structure(shared_converter(), {"name": "r", "nat": wished}, RouterSpec).nat is preset
    assert named(config) is preset and named(preset) is preset


@pytest.mark.parametrize("preset", FIREWALL_PRESETS)
def test_a_firewall_by_its_name_enum_table_or_object_is_the_same(preset: Firewall) -> None:
    config = FIREWALL_PRESETS[preset]
    for wished in (str(preset), preset, plain(config), config, FirewallConfig(**plain(config))):
        assert structure(shared_converter(), wished, FIREWALL) is preset  # type: ignore[arg-type]
        assert structure(shared_converter(), {"name": "r", "firewall": wished}, RouterSpec).firewall is preset
    assert firewall_named(config) is preset and firewall_named(preset) is preset


def test_a_nat_that_is_no_preset_is_its_configuration() -> None:
    router = read("""
        firewall = { outbound_tcp = [443, 80, 443], outbound_udp = "none" }
        [nat]
        mapping = "address-dependent"
        port_allocation = "block:64"
        udp_timeout = 2
        protocols = ["udp"]
    """)
    assert router.nat == NatConfig(
        Behavior.ADDRESS_DEPENDENT,
        port_allocation=PortAllocation("block", 64),
        udp_timeout=2,
        protocols=["udp"],
    )
    assert router.firewall == FirewallConfig(outbound_tcp=(80, 443), outbound_udp="none")
    assert named(router.nat) is router.nat and firewall_named(router.firewall) is router.firewall


def test_an_empty_table_has_the_defaults() -> None:
    router = read("nat = {}\nfirewall = {}")
    assert (router.nat, router.firewall) == (Nat.HOME, Firewall.NONE)


def test_nothing_named_is_left_to_the_preset() -> None:
    assert (read("").nat, read("").firewall) == (None, None)


def test_the_order_of_ports_and_protocols_does_not_matter() -> None:
    assert NatConfig(protocols=("udp", "tcp")) == NatConfig(protocols=["tcp", "udp"])
    assert FirewallConfig(outbound_tcp=[443, 80]) == FirewallConfig(outbound_tcp={80, 443})
    assert hash(NatConfig(protocols=["udp"])) == hash(NatConfig(protocols=("udp",)))


def test_in_a_spec_made_in_python_an_object_is_the_preset_that_it_equals() -> None:
    by_name, by_object = RouterSpec("r", nat=Nat.CGNAT), RouterSpec("r", nat=NAT_PRESETS[Nat.CGNAT])
    assert resolve(by_name) == resolve(by_object)


# Wrong

BAD = {
    "a NAT that nobody knows": (
        'nat = "hom"',
        [
            "nat: found 'hom'; accepted: 'none', 'home', 'full-cone', 'address-restricted', 'corporate', "
            "'cloud-nat', 'cgnat', 'symmetric-predictable', or a table such as "
            "{ filtering = 'endpoint-independent' }; did you mean 'home'?"
        ],
    ),
    "a firewall that nobody knows": (
        'firewall = "block-inbond"',
        [
            "firewall: found 'block-inbond'; accepted: 'none', 'block-inbound', 'corporate', "
            "'captive-portal', or a table such as { outbound_udp = [53] }; did you mean 'block-inbound'?"
        ],
    ),
    "every field of a NAT": (
        """[nat]
        mapping = "eim"
        filtering = 3
        port_allocation = "seqential"
        hairpin = "yes"
        udp_timeout = 2.5
        udp_stream_timeout = true
        tcp_established_timeout = "long"
        protocols = "tcp"
        timeout = 1
        """,
        [
            f"nat.mapping: found 'eim'; {BEHAVIORS}",
            f"nat.filtering: found 3; {BEHAVIORS}",
            f"nat.port_allocation: found 'seqential'; {PORTS}; did you mean 'sequential'?",
            "nat.hairpin: found 'yes'; accepted: true or false",
            f"nat.udp_timeout: found 2.5; {SECONDS}",
            f"nat.udp_stream_timeout: found True; {SECONDS}",
            f"nat.tcp_established_timeout: found 'long'; {SECONDS}",
            f"nat.protocols: found 'tcp'; {PROTOCOLS}",
            f"nat.timeout: unknown key; accepted: {NAT_KEYS}; did you mean 'udp_timeout'?",
        ],
    ),
    "times that no NAT has": (
        "nat = { udp_timeout = 0, udp_stream_timeout = -1, tcp_established_timeout = 2000001 }",
        [
            f"nat.udp_timeout: found 0; {SECONDS}",
            f"nat.udp_stream_timeout: found -1; {SECONDS}",
            f"nat.tcp_established_timeout: found 2000001; {SECONDS}",
        ],
    ),
    "protocols that are not translated so": (
        'nat = { protocols = ["icmp", "udp"] }',
        [f"nat.protocols: found ['icmp', 'udp']; {PROTOCOLS}"],
    ),
    "no protocols": ("nat = { protocols = [] }", [f"nat.protocols: found []; {PROTOCOLS}"]),
    "a protocol twice": (
        'nat = { protocols = ["udp", "udp"] }',
        [f"nat.protocols: found ['udp', 'udp']; {PROTOCOLS}"],
    ),
    "a number for a protocol": (
        'nat = { protocols = ["udp", 17] }',
        [f"nat.protocols: found ['udp', 17]; {PROTOCOLS}"],
    ),
    "every field of a firewall": (
        'firewall = { block_inbound = 1, outbound_tcp = "some", outbound_udp = [53, 0], inbound = "all" }',
        [
            "firewall.block_inbound: found 1; accepted: true or false",
            f"firewall.outbound_tcp: found 'some'; {POLICY}",
            f"firewall.outbound_udp: found [53, 0]; {POLICY}",
            "firewall.inbound: unknown key; accepted: block_inbound, outbound_tcp, outbound_udp; "
            "did you mean 'block_inbound'?",
        ],
    ),
    "no ports": ("firewall = { outbound_tcp = [] }", [f"firewall.outbound_tcp: found []; {POLICY}"]),
    "a port beyond the last": (
        "firewall = { outbound_tcp = [65536] }",
        [f"firewall.outbound_tcp: found [65536]; {POLICY}"],
    ),
    "true for a port": (
        "firewall = { outbound_tcp = [true] }",
        [f"firewall.outbound_tcp: found [True]; {POLICY}"],
    ),
    "a port that is no list": (
        "firewall = { outbound_udp = 53 }",
        [f"firewall.outbound_udp: found 53; {POLICY}"],
    ),
    "both of a router": (
        'nat = { filtering = "open" }\nfirewall = { outbound_tcp = "some" }',
        [f"nat.filtering: found 'open'; {BEHAVIORS}", f"firewall.outbound_tcp: found 'some'; {POLICY}"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_all_faults_are_reported_at_once(case: str) -> None:
    toml, expected = BAD[case]
    assert problems(toml) == expected


def test_a_time_out_of_range_is_reported_beside_a_wrong_mapping() -> None:
    assert problems('nat = { mapping = "eim", udp_timeout = 0 }') == [
        f"nat.mapping: found 'eim'; {BEHAVIORS}",
        f"nat.udp_timeout: found 0; {SECONDS}",
    ]


@pytest.mark.parametrize("size", [1, 255, 256, 257, 1008, 64511, 64512])
def test_a_block_may_have_ports(size: int) -> None:
    (allocation,) = {
        PortAllocation.read(f"block:{size}"),
        PortAllocation("block", size),
        NatConfig(port_allocation=f"block:{size}").port_allocation,
    }
    assert str(allocation) == f"block:{size}"


@pytest.mark.parametrize(
    "text",
    ["block:0", "block:64513", "block:-1", "block:+1", "block:1.5", "block:", "block", "block: 8", "block:८"],
)
def test_no_block_has_the_size(text: str) -> None:
    (problem,) = problems(f'nat = {{ port_allocation = "{text}" }}')
    assert problem.startswith(f"nat.port_allocation: found {text!r}; {PORTS}")


# In Python


def refused(make: Any, **fields: Any) -> list[str]:
    with pytest.raises(SpecError) as raised:
        make(**fields)
    return [str(problem) for problem in raised.value.problems]


def test_a_configuration_made_in_python_says_what_is_wrong_with_it() -> None:
    assert refused(NatConfig, mapping="eim") == [f"mapping: found 'eim'; {BEHAVIORS}"]
    assert refused(NatConfig, filtering=None) == [f"filtering: found None; {BEHAVIORS}"]
    assert refused(NatConfig, port_allocation=1008) == [f"port_allocation: found 1008; {PORTS}"]
    assert refused(NatConfig, udp_timeout=2.5, hairpin=0) == [
        "hairpin: found 0; accepted: true or false",
        f"udp_timeout: found 2.5; {SECONDS}",
    ]
    assert refused(NatConfig, protocols=["sctp"]) == [f"protocols: found ['sctp']; {PROTOCOLS}"]
    assert refused(FirewallConfig, outbound_tcp="some") == [f"outbound_tcp: found 'some'; {POLICY}"]
    assert refused(FirewallConfig, block_inbound="yes") == [
        "block_inbound: found 'yes'; accepted: true or false"
    ]


def test_a_configuration_made_in_python_says_all_that_is_wrong_with_it() -> None:
    assert refused(NatConfig, udp_timeout=0, filtering="eif", mapping="eim") == [
        f"mapping: found 'eim'; {BEHAVIORS}",
        f"filtering: found 'eif'; {BEHAVIORS}",
        f"udp_timeout: found 0; {SECONDS}",
    ]
    assert refused(FirewallConfig, block_inbound=1, outbound_tcp="some", outbound_udp=(53, 0)) == [
        "block_inbound: found 1; accepted: true or false",
        f"outbound_tcp: found 'some'; {POLICY}",
        f"outbound_udp: found (53, 0); {POLICY}",
    ]


@pytest.mark.parametrize("value", [3, None, [1, "tcp"], "tcp"], ids=repr)
def test_protocols_made_in_python_are_refused_by_a_spec_error(value: object) -> None:
    assert refused(NatConfig, protocols=value) == [f"protocols: found {value!r}; {PROTOCOLS}"]


@pytest.mark.parametrize(
    "fields",
    [("block",), ("blok", 3), ("block", 0), ("random", 3), ("block", True), ("block", 8.0), (3,)],
    ids=str,
)
def test_no_port_allocation_can_be_made_that_could_not_be_written(fields: tuple[Any, ...]) -> None:
    with pytest.raises(SpecError) as raised:
        PortAllocation(*fields)
    (problem,) = raised.value.problems
    assert problem.path == "" and problem.message.endswith(f"; {PORTS}")
