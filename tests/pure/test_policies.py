"""Changes of NATs and firewalls: what is done, in which order, and how it is taken back."""

from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from patchbay.change.base import Change
from patchbay.change.nodes import Add
from patchbay.layout.allocate import extend
from patchbay.layout.layout import Layout
from patchbay.model.lab import DeviceSpec, IfaceSpec, LabSpec, RouterSpec
from patchbay.model.nat import Nat, read_nat
from patchbay.plan.change import between
from patchbay.tools.commands import Nft, SetSysctl
from tests.pure.fake_kernel import Kernel
from tests.pure.fake_namespaces import TIMEOUTS
from tests.pure.fake_packets import owner
from tests.pure.labs import FIREWALLS, NATS, QUICK, labs, layout_of
from tests.pure.nft_text import read_commands
from tests.pure.policies import (
    ALL_PORTS,
    BLOCKS,
    LAB,
    after,
    built,
    carried_out,
    device,
    firewall,
    flush,
    history,
    nat,
    parts,
    plan,
    router,
    transactions,
)

seeds = st.integers(0, 2**32)
NS = router().ns


def verbs(texts: list[str]) -> list[tuple[str, str]]:
    return [(verb, table) for text in texts for verb, table, _ in read_commands(text)]


# What is done


def test_from_a_policy_to_the_same_there_is_nothing_to_do() -> None:
    assert not between(LAB, LAB)
    same = evolve(LAB, policies={ns: evolve(policy) for ns, policy in LAB.policies.items()})
    assert not between(LAB, same)


def test_the_firewall_that_is_there_changes_nothing_by_whichever_name() -> None:
    assert not plan(LAB, firewall("block-inbound"))
    assert not plan(LAB, firewall({"block_inbound": True}))


@pytest.mark.parametrize("wished", ["full-cone", BLOCKS, {"filtering": "address-dependent"}], ids=str)
def test_another_nat_is_one_transaction_that_drops_the_table_and_loads_it(wished: object) -> None:
    changed = plan(LAB, nat(wished))
    ((ns, texts),) = transactions(changed)
    assert ns == NS
    elements = [("add", "nat")] * 7 if wished is BLOCKS else []
    assert verbs(texts) == [("create", "nat"), ("delete", "nat"), ("define", "nat"), *elements]
    # All of a stage that begins when everything else is done.
    (stage,) = changed.stages
    assert stage.barrier and not stage.make


def test_blocks_of_all_hosts_come_after_the_table_that_they_are_elements_of() -> None:
    kernel = carried_out(plan(LAB, nat(BLOCKS)), built(LAB))
    table = kernel.namespaces[NS].tables["nat"]
    hosts = ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    assert table.elements["outside_address"] == dict.fromkeys(hosts, "26.0.0.2")
    assert [*table.elements["page"]] == [f"{host} . {page}" for host in hosts for page in range(4)]


def test_a_host_that_comes_later_gets_its_block_and_the_table_stays() -> None:
    old = after(LAB, nat(BLOCKS))
    ((ns, texts),) = transactions(plan(old, device("four")))
    assert (ns, verbs(texts)) == (NS, [("add", "nat")] * 2)
    assert all("10.0.0.5" in line for text in texts for line in text.splitlines())


def test_a_host_below_another_nat_changes_no_block() -> None:
    assert transactions(plan(after(LAB, nat(BLOCKS)), device("four", at="below"))) == []


@pytest.mark.parametrize("wished", ["none", "corporate", {"outbound_tcp": "none"}], ids=str)
def test_another_firewall_leaves_the_nat_and_its_timeouts_alone(wished: object) -> None:
    for old in (LAB, after(LAB, nat(BLOCKS))):
        changed = plan(old, firewall(wished))
        ((ns, texts),) = transactions(changed)
        assert ns == NS and {table for _, table in verbs(texts)} == {"filter"}
        assert [verb for verb, _ in verbs(texts)][:2] == ["create", "delete"]
        assert all(isinstance(command, Nft) for command in changed)


def test_nat_and_firewall_that_change_together_are_one_transaction() -> None:
    ((_, texts),) = transactions(plan(LAB, nat(BLOCKS), firewall("none")))
    assert {table for _, table in verbs(texts)} == {"nat", "filter"}


def test_changes_of_several_routers_are_a_transaction_in_each() -> None:
    found = transactions(plan(LAB, flush(), flush("below")))
    assert sorted(ns for ns, _ in found) == ["below", "r"]


def test_to_forget_is_the_same_table_in_another_zone() -> None:
    kernel = carried_out(plan(LAB, flush()), built(LAB))
    before, after = (it.namespaces[NS].tables["nat"] for it in (built(LAB), kernel))
    zones = {name: chain for name, chain in after.chains.items() if name.startswith("zone_")}
    assert [chain.rules for chain in zones.values()] == [["ct zone set 2"]] * 2
    assert {**before.chains, **zones} == after.chains and before.sets == after.sets


def test_without_a_nat_only_the_zone_is_left() -> None:
    kernel = carried_out(plan(LAB, nat("none")), built(LAB))
    assert [*kernel.namespaces[NS].tables["nat"].chains] == ["zone_prerouting", "zone_output"]


@pytest.mark.parametrize("change", [nat("none"), nat("cgnat"), flush(), firewall("none")], ids=range(4))
def test_addresses_and_routes_stay_whatever_a_router_does_to_packets(change: Change) -> None:
    new = change.apply(LAB)
    assert (new.forwarders, new.devices) == (LAB.forwarders, LAB.devices)
    assert {type(command) for command in between(LAB, new)} <= {Nft, SetSysctl}
    # What a NAT kept unknown above it stays so: packets to it find no way.
    device = LAB.devices["one"].ifaces[0].addresses[0].ip
    kernel = built(new)
    assert owner(kernel, device, "ix") is None and owner(kernel, device, NS) == "one"


# How long connections last


def timeouts(kernel: Kernel) -> dict[str, str]:
    sysctls = kernel.namespaces[NS].sysctls
    found = {name: sysctls[f"net/netfilter/nf_conntrack_{name}"] for name in TIMEOUTS}
    return {name: value for name, value in found.items() if value != TIMEOUTS[name]}


HOME = {"udp_timeout_stream": "300", "tcp_timeout_established": "7440"}


def test_timeouts_are_those_of_the_nat_and_the_kernels_again_without_one() -> None:
    layout, kernel = LAB, built(LAB)
    assert timeouts(kernel) == HOME
    for wished, expected in (
        ("corporate", {"tcp_timeout_established": "3600"}),
        ({"udp_timeout": 2}, {**HOME, "udp_timeout": "2"}),
        ("none", {}),
        ("home", HOME),
    ):
        new = after(layout, nat(wished))
        kernel, layout = carried_out(between(layout, new), kernel), new
        assert timeouts(kernel) == expected


def test_only_timeouts_that_change_are_set() -> None:
    found = [command.name for command in plan(LAB, nat({"udp_timeout": 7})) if isinstance(command, SetSysctl)]
    assert found == ["net/netfilter/nf_conntrack_udp_timeout"]
    assert not any(isinstance(command, SetSysctl) for command in plan(LAB, nat("full-cone")))


@pytest.mark.parametrize("seconds", [1, 59, 60, 239])
def test_where_established_tcp_is_short_lived_no_other_state_of_it_is_longer(seconds: int) -> None:
    kernel = carried_out(plan(LAB, nat({"tcp_established_timeout": seconds})), built(LAB))
    found = {**TIMEOUTS, **timeouts(kernel)}
    assert found["tcp_timeout_established"] == str(seconds)
    assert {int(value) for name, value in found.items() if name.startswith("tcp_")} <= {
        *range(1, seconds + 1)
    }


def test_closed_tcp_is_not_longer_than_established_tcp_either() -> None:
    found = {
        c.name: c.value for c in plan(LAB, nat({"tcp_established_timeout": 4})) if isinstance(c, SetSysctl)
    }
    assert found.get("net/netfilter/nf_conntrack_tcp_timeout_close") == "4"


def test_timeouts_are_set_after_the_rules_that_bring_conntrack_about() -> None:
    commands = list(plan(after(LAB, nat("none")), nat("home")))
    kinds = [type(command) for command in commands]
    assert kinds.index(Nft) < kinds.index(SetSysctl)


def test_of_a_new_router_timeouts_are_set_after_its_rules() -> None:
    kinds = [
        type(c) for c in between(None, LAB) if isinstance(c, Nft) or "conntrack" in getattr(c, "name", "")
    ]
    assert kinds.index(Nft) < kinds.index(SetSysctl)


SIX = layout_of("""
[[router]]
name = "r"
nat = "corporate"
ip_support = "v6-only"
""")


def test_a_router_without_ipv4_sets_no_timeout_of_its_nat() -> None:
    assert not any("conntrack" in getattr(command, "name", "") for command in between(None, SIX))


# And back

ROUTER_WITH_POOL = LabSpec(
    routers=(RouterSpec("cgn", nat=read_nat(ALL_PORTS)),),
    devices=tuple(DeviceSpec(f"c{number}", {"eth0": IfaceSpec("cgn")}) for number in range(3)),
)
WITH_SMALL_MTU = evolve(ROUTER_WITH_POOL.routers[0], mtu=1400)
CHANGES: dict[str, tuple[Change, ...]] = {
    "another nat": (nat("home"), nat("full-cone")),
    "a nat of blocks": (nat("home"), nat(BLOCKS)),
    "a nat of other blocks": (nat(BLOCKS), nat({"port_allocation": "block:64"})),
    "no nat": (nat(BLOCKS), nat("none")),
    "a nat after none": (nat("none"), nat("corporate")),
    "what is forgotten": (nat(BLOCKS), flush()),
    "another firewall": (firewall("corporate"), firewall({"outbound_tcp": "none"})),
    "no firewall": (firewall("corporate"), firewall("none")),
    "a firewall after none": (firewall("none"), firewall("corporate")),
    "a short-lived nat": (nat("home"), nat({"tcp_established_timeout": 3, "udp_timeout": 1})),
    "a nat below": (nat(BLOCKS), nat("none", "below")),
}
ADDITIONS: dict[str, tuple[Change, ...]] = {
    "a host with a block": (nat(BLOCKS), device("four")),
    "a host and all of it": (
        nat(BLOCKS),
        *(device("four"), nat("cgnat"), firewall("none"), flush("below")),
    ),
    "a router with a pool": (nat("home"), Add(ROUTER_WITH_POOL)),
    "a router with a pool and a small mtu": (
        nat("home"),
        Add(evolve(ROUTER_WITH_POOL, routers=(WITH_SMALL_MTU,))),
    ),
    "such a router below a new one": (
        nat("home"),
        Add(evolve(ROUTER_WITH_POOL, routers=(RouterSpec("isp"), evolve(WITH_SMALL_MTU, upstream="isp")))),
    ),
    "a nat with a pool": (nat("home"), nat(ALL_PORTS)),
    "a host that needs an address": (nat(ALL_PORTS), device("four")),
}


EVERY_CHANGE: dict[str, tuple[Change, ...]] = {**CHANGES, **ADDITIONS}


def comes_back(old: Layout, new: Layout) -> None:
    before = built(old)
    there, back = parts(between(old, new)), between(new, old, undoing=True)
    broken = before.copy()
    for done, commands in enumerate([[], *there]):
        broken.run(commands)
        assert carried_out(back, broken).namespaces == before.namespaces, f"after {done} of {len(there)}"


@pytest.mark.parametrize("case", CHANGES)
def test_from_anywhere_one_may_change_back_from(case: str) -> None:
    first, *then = CHANGES[case]
    old = after(LAB, first)
    comes_back(old, after(old, *then))


@pytest.mark.parametrize("case", EVERY_CHANGE)
def test_from_anywhere_can_be_undone(case: str) -> None:
    first, *then = EVERY_CHANGE[case]
    old = after(LAB, first)
    comes_back(old, after(old, *then))


@QUICK
@given(labs(), seeds)
def test_whatever_routers_become_the_kernel_is_as_if_they_had_been_made_so(spec: LabSpec, seed: int) -> None:
    layouts = list(history(spec, seed))
    kernel = built(layouts[0])
    for old, new in pairwise(layouts):
        kernel = carried_out(between(old, new), kernel)
        assert kernel == built(new)


@QUICK
@given(labs(), st.sampled_from(NATS), st.sampled_from(FIREWALLS))
def test_a_change_of_one_router_touches_no_other(spec: LabSpec, wished: object, barred: object) -> None:
    layout = list(history(spec, 0, steps=0))[-1]
    name = spec.routers[-1].name
    ns = router(layout, name).ns
    new = after(layout, nat(wished, name), firewall(barred, name))
    changed = {ns: (layout.policies[ns], policy) for ns, policy in new.policies.items()}
    blocks = {it for it, (old, now) in changed.items() if now.blocks != old.blocks}
    # Where an uplink has an MTU of its own, the router above knows it of each of its addresses.
    wider = {it for it, (old, now) in changed.items() if len(now.pool) != len(old.pool)}
    uplinks = (it.uplink for it in new.forwarders.values() if it.uplink and it.ns in wider)
    above = {uplink.router_ns for uplink in uplinks if uplink.mtu is not None}
    assert {command.ns for command in between(layout, new)} <= {ns, *blocks, *above}


def test_the_owner_of_all_rules_of_a_nat_is_the_table() -> None:
    for command in plan(LAB, nat(BLOCKS)):
        if isinstance(command, Nft):
            assert command.owner == f"{NS}#nat"
            assert command.ruleset.startswith(("add element inet nat", "table inet nat"))


def test_every_command_says_what_for_it_is_run() -> None:
    changed = plan(LAB, nat({**ALL_PORTS, "udp_timeout": 2}), firewall("none"))
    assert {command.why for command in changed} == {
        "give a port-block NAT one more outside address",
        "set how long mappings of router 'r' last",
        "take NAT of router 'r' away",
        "load NAT of its own kind of router 'r'",
        "take firewall of router 'r' away",
        "give hosts below router 'r' ports of their own",
    }
    assert "load NAT 'corporate' of router 'r'" in {command.why for command in plan(LAB, nat(Nat.CORPORATE))}


def test_the_same_change_is_the_same_commands_in_the_same_order() -> None:
    old = after(LAB, nat(BLOCKS))
    devices = tuple(DeviceSpec(f"x{number}", {"eth0": IfaceSpec("r")}) for number in range(30))
    new = extend(old, LabSpec(devices=devices))
    taken = [command.ruleset for command in between(new, old) if isinstance(command, Nft)]
    given = [device.ifaces[0].addresses[0].ip for name, device in new.devices.items() if name[0] == "x"]
    assert len(taken) == len(given)
    assert all(f"{{ {ip} : " in text for text, ip in zip(taken, given, strict=True))
