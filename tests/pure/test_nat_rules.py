"""The rules of NATs: their texts, what holds for all of them, and whether a kernel takes them."""

import re
import subprocess
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from attrs import evolve

from patchbay.layout.allocate import empty_layout, extend
from patchbay.layout.blocks import with_blocks
from patchbay.layout.layout import PolicyLayout, RouterLayout
from patchbay.model.lab import DeviceSpec, IfaceSpec, IpSupport, LabSpec, RouterSpec
from patchbay.model.nat import NAT_PRESETS, Behavior, Nat, NatConfig
from patchbay.plan.nat import block_elements, nat_table
from patchbay.tools.nft import render
from tests.pure.goldens import FOLDER, assert_golden
from tests.pure.nft_text import TextChain, TextTable, read_table

EI, AD, APD = Behavior
HOSTS = tuple(DeviceSpec(f"d{number}", {"eth0": IfaceSpec("r")}) for number in range(3))
LAYOUT = extend(empty_layout(), LabSpec(routers=(RouterSpec("r", nat=Nat.HOME),), devices=HOSTS))
_FOUND = LAYOUT.router("r")
assert _FOUND
ROUTER: RouterLayout = _FOUND
OUTSIDE = "26.0.0.2"


def policy_of(nat: Nat | NatConfig, generation: int = 0) -> PolicyLayout:
    """What router r does with that NAT and three hosts below, which may need two addresses more."""
    wished = evolve(LAYOUT.policies[ROUTER.ns], nat=nat, generation=generation)
    return with_blocks(evolve(LAYOUT, policies={ROUTER.ns: wished})).policies[ROUTER.ns]


def text_of(nat: Nat | NatConfig, generation: int = 0) -> str:
    table = nat_table(ROUTER, policy_of(nat, generation))
    return render(table) if table else ""


# Texts

GOLDENS: dict[str, tuple[Nat | NatConfig, int]] = {
    **{str(nat): (nat, 0) for nat in NAT_PRESETS},
    **{
        f"{mapping.short}M-{filtering.short}F".lower(): (NatConfig(mapping, filtering), 0)
        for mapping, filtering in product(Behavior, Behavior)
    },
    "hairpin-adf": (NatConfig(filtering=AD, hairpin=True), 0),
    "hairpin-apdf": (NatConfig(filtering=APD, hairpin=True), 0),
    "block-64": (NatConfig(port_allocation="block:64"), 0),
    "udp-alone": (NatConfig(protocols=("udp",)), 0),
    "short-lived": (NatConfig(udp_timeout=2, udp_stream_timeout=3, tcp_established_timeout=4), 0),
    "flushed": (Nat.HOME, 1),
    "flushed-two-zones": (NatConfig(APD, EI), 1),
    "none-flushed": (Nat.NONE, 1),
}


@pytest.mark.parametrize("case", GOLDENS)
def test_the_rules_of(case: str) -> None:
    nat, generation = GOLDENS[case]
    elements = (text for _, text in block_elements(ROUTER, policy_of(nat, generation)))
    lines = "".join(f"# {line}\n" for text in elements for line in text.splitlines())
    assert_golden(f"nat-{case}.nft", text_of(nat, generation) + lines)


def test_every_golden_of_rules_belongs_to_a_test() -> None:
    assert {file.stem for file in FOLDER.glob("nat-*.nft")} == {f"nat-{case}" for case in GOLDENS}


def test_where_nothing_is_translated_and_nothing_was_forgotten_there_is_no_table() -> None:
    assert nat_table(ROUTER, PolicyLayout()) is None


def test_a_router_without_ipv4_above_it_translates_nothing() -> None:
    layout = extend(
        empty_layout(), LabSpec(routers=(RouterSpec("six", nat=Nat.HOME, ip_support=IpSupport.V6_ONLY),))
    )
    router = layout.router("six")
    assert router and nat_table(router, layout.policy(router)) is None
    assert list(block_elements(router, evolve(layout.policy(router), nat=Nat.CGNAT))) == []


# All of them

# With blocks of one page, and of all ports; with names that mean the same, none.
ALLOCATIONS = ("preserve", "random", "sequential", "block:300")
PROTOCOLS = (("tcp", "udp"), ("udp",), ("tcp",))
GENERATIONS = (0, 3)


def name_of(config: NatConfig) -> str:
    hairpin = "-hairpin" if config.hairpin else ""
    ports = str(config.port_allocation).replace(":", "-")
    what = f"{config.mapping.short}M-{config.filtering.short}F-{ports}{hairpin}".lower()
    return f"{what}-{'-'.join(config.protocols)}"


GRID = {
    name_of(config): config
    for config in (
        NatConfig(mapping, filtering, ports, hairpin, protocols=protocols)
        for mapping, filtering, ports, hairpin, protocols in product(
            Behavior, Behavior, ALLOCATIONS, (False, True), PROTOCOLS
        )
    )
}
ODD = {
    "blocks-of-one": NatConfig(port_allocation="block:1"),
    "blocks-of-eight": NatConfig(port_allocation="block:8", filtering=EI, hairpin=True),
    "blocks-of-a-page": NatConfig(port_allocation="block:256", mapping=APD),
    "blocks-of-all-ports": NatConfig(port_allocation="block:64512", mapping=AD, filtering=AD),
    "the-shortest": NatConfig(AD, EI, "random", True, 1, 1, 1),
    "the-longest": NatConfig(AD, EI, "random", True, 2_000_000, 2_000_000, 2_000_000),
    "as-long-as-closing": NatConfig(tcp_established_timeout=240),
    "longer-than-closing": NatConfig(tcp_established_timeout=241),
    **{str(nat): config for nat, config in NAT_PRESETS.items()},
}
ALL = {**GRID, **ODD}


@cache
def tables() -> tuple[tuple[str, NatConfig, int, str, TextTable], ...]:
    return tuple(
        (f"{name} of generation {generation}", config, generation, text, read_table(text))
        for name, config in ALL.items()
        for generation in GENERATIONS
        for text in [text_of(config, generation)]
    )


def below(table: TextTable, chain: TextChain) -> set[str]:
    found: set[str] = set()
    waiting = {*chain.jumps}
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= table.chains[name].jumps - found
    return found


def depth(table: TextTable, chain: TextChain) -> int:
    return 1 + max((depth(table, table.chains[name]) for name in chain.jumps), default=0)


def test_every_chain_that_is_jumped_to_is_there_and_every_chain_is_reached() -> None:
    for name, _, _, _, table in tables():
        hooked = {chain: it for chain, it in table.chains.items() if it.hook}
        reached = {*hooked}.union(*(below(table, chain) for chain in hooked.values()))
        assert reached == {*table.chains}, name
        assert not any(chain in it.jumps for chain in hooked for it in table.chains.values()), name
        # NFT_JUMP_STACK_SIZE in the kernel; a chain that leads back to itself would never end.
        assert all(chain not in below(table, it) for chain, it in table.chains.items()), name
        assert max(depth(table, chain) for chain in hooked.values()) <= 16, name


PUT_IN = {"outside", "outside_address", "page"}


def test_every_set_that_rules_name_is_there_and_is_both_written_and_read() -> None:
    for name, _, _, _, table in tables():
        named = [set_name for chain in table.chains.values() for set_name in chain.sets]
        assert {*named} == {*table.sets}, name
        written = {it for rule in table.rules for it in re.findall(r"\b(?:update|add) @(\w+)", rule)}
        read = {
            it
            for rule in table.rules
            for it in re.findall(r"(?<!update )(?<!add )(?<!delete )@(\w+)(?!\S)", rule)
        }
        # The blocks of hosts are put in from outside, and no rule changes them.
        dynamic = {each for each, lines in table.sets.items() if "flags dynamic,timeout" in lines}
        assert written == dynamic and {*table.sets} - dynamic <= PUT_IN, name
        assert read - {"ll"} == {*table.sets}, name


def test_only_the_routers_own_outside_addresses_are_translated_to() -> None:
    for name, config, generation, text, table in tables():
        policy = policy_of(config, generation)
        own = {OUTSIDE, *map(str, policy.pool)}
        assert {*re.findall(r"\d+\.\d+\.\d+\.\d+", text)} <= own, name
        for rule in table.rules:
            if match := re.search(r"snat ip to (.*?)(?= : |$)", rule):
                paired = "ct original ip saddr map @outside_address"
                assert match[1] == (paired if config.port_allocation.block else OUTSIDE), name
            if match := re.search(r"dnat ip to (.*)$", rule):
                assert re.search(r" map @inbound_(lasting|brief)$", match[1]), name


def test_translation_happens_at_the_uplink_and_between_inside_hosts_only_where_they_hairpin() -> None:
    for name, config, _, _, table in tables():
        hairpins = config.hairpin and (config.filtering is not APD or config.mapping is EI)
        sides = {rule.split(" ")[1] for rule in table.chains["postrouting"].rules}
        assert sides == ({'"wan"', '"lan"'} if hairpins else {'"wan"'}), name
        inside = {rule.split(" ")[1] for rule in table.chains.get("prerouting", TextChain()).rules}
        lets_in = config.filtering is not APD
        assert inside == {*(['"wan"'] * lets_in), *(['"lan"'] * hairpins)}, name


def test_connections_are_in_the_zones_of_their_generation_alone() -> None:
    for name, config, generation, text, _ in tables():
        two = config.filtering is not APD and config.mapping is not EI
        zones = {int(zone) for zone in re.findall(r"ct zone (?:set )?(\d+)", text)}
        base = {2 * generation}
        assert zones == (base | {2 * generation + 1} if two else base - {0}), name


@pytest.mark.parametrize("generation", [1, 32767, 32768, 100_000])
def test_zones_never_exceed_what_conntrack_has(generation: int) -> None:
    text = text_of(NatConfig(AD, EI), generation)
    assert all(0 <= int(zone) < 65536 for zone in re.findall(r"ct zone (?:set )?(\d+)", text))


def test_a_protocol_that_does_not_follow_the_nat_is_not_remembered() -> None:
    for name, config, _, _, table in tables():
        for protocol in {"tcp", "udp"} - {*config.protocols}:
            remembered = [rule for rule in table.rules if re.search(r"(update|add) @", rule)]
            assert not any(f"l4proto {protocol}" in rule for rule in remembered), name
            assert not any(f"{protocol} sport set" in rule for rule in table.rules), name


def test_nothing_is_remembered_for_longer_than_its_configuration_says() -> None:
    for name, config, _, _, table in tables():
        closing = min(240, config.tcp_established_timeout)
        allowed = {
            "udp": {config.udp_timeout, config.udp_stream_timeout},
            "tcp": {closing, config.tcp_established_timeout},
        }
        for rule in table.rules:
            for seconds in map(int, re.findall(r" timeout (\d+)s", rule)):
                protocols = re.findall(r"meta l4proto (tcp|udp)\b", rule) or config.protocols
                exact = set().union(*(allowed[protocol] for protocol in protocols))
                # A port that was just chosen, from one rule to the next.
                chosen = "add @chosen_" in rule and seconds == 1
                assert seconds in exact or chosen or "@came_in" in rule, f"{name}: {rule}"


def test_what_hosts_sent_each_other_is_remembered_as_a_connection_without_an_answer_is() -> None:
    for name, config, _, _, table in tables():
        rules = [rule for rule in table.chains["forward"].rules if " update @" in rule]
        lasting = {"tcp": min(240, config.tcp_established_timeout), "udp": config.udp_timeout}
        found = {
            protocol: int(seconds)
            for rule in rules
            for protocol, seconds in re.findall(r"l4proto (tcp|udp) .* timeout (\d+)s", rule)
        }
        filtered = config.hairpin and config.filtering is not EI
        noted = filtered and (config.filtering is AD or config.mapping is EI)
        assert found == ({each: lasting[each] for each in config.protocols} if noted else {}), name
        assert len(found) == len(rules), name


def test_a_peer_that_came_in_is_forgotten_before_its_connection() -> None:
    for name, config, _, _, table in tables():
        closing = min(240, config.tcp_established_timeout)
        ends = {"udp": config.udp_timeout, "tcp": min(10, closing)}
        for rule in table.rules:
            if "update @came_in" in rule and (match := re.search(r"l4proto (\w+) ct status & assured", rule)):
                (seconds,) = map(int, re.findall(r" timeout (\d+)s", rule))
                assert 1 <= seconds < max(2, ends[match[1]]), f"{name}: {rule}"


def test_where_all_ports_are_taken_a_new_mapping_is_dropped() -> None:
    for name, _, _, _, table in tables():
        assert table.chains["outgoing"].rules[-1] == "drop", name
        assert table.chains["claim"].rules[-1].startswith("meta l4proto"), name


def test_every_port_of_a_block_is_tried_before_a_new_mapping_is_dropped() -> None:
    for size in (1, 7, 8, 9, 64, 300, 1008, 4096):
        table = read_table(text_of(NatConfig(port_allocation=f"block:{size}")))

        def tries(name: str, table: TextTable = table) -> int:
            jumps = [rule.split(" ")[1] for rule in table.chains[name].rules if rule.startswith("jump draw")]
            return 1 if name == "draw" else sum(map(tries, jumps))

        assert size <= tries("outgoing") < 2 * size + 8


def test_a_pool_that_grows_leaves_the_rules_alone() -> None:
    """Or a host that comes would make the NAT forget all others."""
    config = NatConfig(port_allocation="block:64512", filtering=EI)
    policy = policy_of(config)
    assert list(map(str, policy.pool)) == ["26.0.0.3", "26.0.0.4"]
    table = read_table(text_of(config))
    for chain in ("prerouting", "outgoing", "input", "memory"):
        assert "@outside " in " ".join(table.chains[chain].rules)
    assert "26.0.0.3" not in text_of(config)


# A kernel

CHECK = 'for file in "$@"; do nft --check -f "$file" || echo "$file"; done'


@pytest.mark.kernel
def test_a_kernel_accepts_every_nat_there_is(tmp_path: Path) -> None:
    """All of mapping, filtering, ports, hairpin and protocols, fresh or flushed, with its blocks."""
    names = []
    for name, config in ALL.items():
        for generation in GENERATIONS if config.protocols == ("tcp", "udp") else GENERATIONS[:1]:
            policy = policy_of(config, generation)
            elements = "".join(
                f"add element inet nat {line}\n"
                for _, text in block_elements(ROUTER, policy)
                for line in text.splitlines()
            )
            file = tmp_path / f"{name}-{generation}"
            file.write_text(text_of(config, generation) + elements, encoding="utf-8")
            names.append(file.name)
    done = subprocess.run(
        ["unshare", "-Urn", "sh", "-c", CHECK, "check", *names],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
