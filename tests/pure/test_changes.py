"""Changes as values: what they make of a lab, what they say of themselves, and their tables."""

import json
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay.change.base import Change
from patchbay.change.codec import CHANGES, from_table, to_table
from patchbay.change.links import SetDownlinkCondition, SetLinkCondition
from patchbay.change.nodes import Add, RemoveDevice
from patchbay.change.policies import SetNat
from patchbay.errors import SpecError
from patchbay.layout.allocate import empty_layout
from patchbay.layout.layout import Layout
from patchbay.model.lab import LabSpec
from patchbay.model.link import Direction, LinkCondition
from patchbay.model.nat import NatConfig
from patchbay.plan.change import between
from patchbay.record.events import EventLog
from patchbay.record.state import reduce_events, snapshot
from tests.pure.fake_kernel import Kernel
from tests.pure.labs import HOME_AND_REGIONS, QUICK, additions, labs
from tests.pure.walks import walk

seeds = st.integers(0, 2**32)


def from_json(change: Change) -> Change:
    """The change after a journey through JSON as any parser takes it."""
    return from_table(json.loads(json.dumps(to_table(change), allow_nan=False)))


@QUICK
@given(labs(), seeds)
def test_every_change_survives_json(spec: LabSpec, seed: int) -> None:
    layout = empty_layout()
    for change in (Add(spec), *additions(spec)):
        assert from_json(change) == change
    for walked, _, _ in walk(Add(spec).apply(layout), seed):
        assert from_json(walked) == walked


@QUICK
@given(labs(), seeds)
def test_what_changes_say_of_themselves_adds_up_to_the_state(spec: LabSpec, seed: int) -> None:
    log = EventLog()
    layout = Add(spec).apply(empty_layout())
    for kind, fields in Add(spec).events(empty_layout(), layout):
        log.add(kind, **fields)
    for change, old, new in walk(layout, seed, steps=15):
        for kind, fields in change.events(old, new):
            log.add(kind, **fields)
        layout = new
    assert reduce_events(log.events) == snapshot(layout)


def carried_out(kernel: Kernel, old: Layout | None, new: Layout) -> Kernel:
    kernel, plan = kernel.copy(), between(old, new)
    kernel.run(plan)
    kernel.made.sort()
    assert all(kernel.namespaces[ns].links[name].up for ns, name in plan.settle)
    return kernel


@QUICK
@given(labs(), seeds)
def test_a_change_gives_the_kernel_of_a_new_lab_and_its_undoing_the_old_one(spec: LabSpec, seed: int) -> None:
    layout = Add(spec).apply(empty_layout())
    kernel = carried_out(Kernel(), None, layout)
    for change, old, new in walk(layout, seed):
        after = carried_out(kernel, old, new)
        fresh = carried_out(Kernel(), None, new)
        assert after.namespaces == fresh.namespaces, change.describe()
        assert (after.files, after.services) == (fresh.files, fresh.services), change.describe()
        back = carried_out(after, new, old)
        assert back.namespaces == kernel.namespaces, f"undoing: {change.describe()}"
        assert (back.files, back.services) == (kernel.files, kernel.services), f"undoing: {change.describe()}"
        kernel = after


@QUICK
@given(labs(), seeds)
def test_many_changes_in_one_plan_give_the_same_and_are_undone_from_anywhere(
    spec: LabSpec, seed: int
) -> None:
    old = Add(spec).apply(empty_layout())
    new = [old, *(layout for _, _, layout in walk(old, seed, steps=12))][-1]
    before, fresh = carried_out(Kernel(), None, old), carried_out(Kernel(), None, new)
    after = carried_out(before, old, new)
    assert (after.namespaces, after.files, after.services) == (fresh.namespaces, fresh.files, fresh.services)
    forwards = list(between(old, new))
    broken = before.copy()
    broken.run(forwards[: Random(seed).randint(0, len(forwards))])
    broken.run(between(new, old, undoing=True))
    assert (broken.namespaces, broken.services) == (before.namespaces, before.services)


def test_a_node_that_is_removed_and_added_in_one_plan_is_another_node() -> None:
    again = from_table({"action": "add", "device": {"laptop": {"eth0": {"gateway": "home"}}}})
    new = again.apply(RemoveDevice("laptop").apply(HOME_AND_REGIONS))
    plan = [command.argv for command in between(HOME_AND_REGIONS, new)]
    assert plan.index(("ip", "netns", "del", "laptop")) < plan.index(("ip", "netns", "add", "laptop"))
    # One whose link has changed is not.
    cleared = SetLinkCondition("laptop", "eth0").apply(HOME_AND_REGIONS)
    assert not any(command.argv[1] == "netns" for command in between(HOME_AND_REGIONS, cleared))


TABLES: dict[str, tuple[Change, dict[str, object]]] = {
    "a preset": (
        SetLinkCondition("laptop", "eth0", LinkCondition(latency_ms=20), Direction.UP),
        {
            "action": "set-link-condition",
            "device": "laptop",
            "interface": "eth0",
            "condition": {"latency_ms": 20},
            "direction": "up",
        },
    ),
    "a cleared link": (
        SetLinkCondition("laptop", "eth0"),
        {"action": "set-link-condition", "device": "laptop", "interface": "eth0"},
    ),
    "no limit": (
        SetDownlinkCondition("home", LinkCondition(rate_kbit=inf)),
        {"action": "set-downlink-condition", "router": "home", "condition": {"rate_kbit": 0}},
    ),
    "a NAT of its own kind": (
        SetNat("home", NatConfig(port_allocation="block:64")),
        {
            "action": "set-nat",
            "router": "home",
            "nat": {
                "mapping": "endpoint-independent",
                "filtering": "address-and-port-dependent",
                "port_allocation": "block:64",
                "hairpin": False,
                "udp_timeout": 30,
                "udp_stream_timeout": 300,
                "tcp_established_timeout": 7440,
                "protocols": ["tcp", "udp"],
            },
        },
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_the_table_of(case: str) -> None:
    change, table = TABLES[case]
    assert to_table(change) == table


def problems(table: dict[str, object]) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        from_table(table).apply(HOME_AND_REGIONS)
    return [(problem.path, problem.message) for problem in caught.value.problems]


ACTIONS = ", ".join(CHANGES)
BAD: dict[str, tuple[dict[str, object], tuple[str, str]]] = {
    "no action": ({"router": "home"}, ("action", f"is missing, and required; accepted: {ACTIONS}")),
    "an unknown action": (
        {"action": "set-nats"},
        ("action", f"found 'set-nats'; accepted: {ACTIONS}; did you mean 'set-nat'?"),
    ),
    "an unknown key": (
        {"action": "flush-nat", "router": "home", "nat": "home"},
        ("nat", "unknown key; accepted: router"),
    ),
    "an unknown router": (
        {"action": "flush-nat", "router": "hom"},
        ("router", "unknown router 'hom'; known: home; did you mean 'home'?"),
    ),
    "an unknown device": (
        {"action": "remove-device", "device": "x"},
        ("device", "unknown device 'x'; known: laptop"),
    ),
    "an unknown interface": (
        {"action": "set-link-condition", "device": "laptop", "interface": "eth1"},
        ("interface", "unknown interface 'eth1'; known: eth0; did you mean 'eth0'?"),
    ),
    "an unknown node": (
        {"action": "add-name", "name": "x", "ips": ["192.0.2.1"], "node": "lapto"},
        ("node", "unknown node 'lapto'; known: home, ix, laptop; did you mean 'laptop'?"),
    ),
    "an unknown region": (
        {"action": "break-region-link", "a": "eu", "b": "uk"},
        ("region", "unknown region 'uk'; known: eu, us"),
    ),
    "a link of a region to itself": (
        {"action": "link-regions", "a": "eu", "b": "eu", "condition": {"latency_ms": 1}},
        ("regions", "found 'eu' twice; accepted: two regions"),
    ),
    "no address": (
        {"action": "set-nameserver", "ip": "1.2.3"},
        ("ip", "found '1.2.3'; accepted: an IPv4 or IPv6 address"),
    ),
    "a value out of range": (
        {"action": "set-downlink-condition", "router": "home", "condition": {"loss_pct": 101}},
        ("condition.loss_pct", "found 101; accepted: 0 to 100 %"),
    ),
    "values that do not go together": (
        {"action": "set-downlink-condition", "router": "home", "condition": {"jitter_ms": 5}},
        ("condition.jitter_ms", "(up) found 5, more than the latency; accepted: 0 to latency_ms (0) ms"),
    ),
    "a router with something below it": (
        {"action": "remove-router", "router": "home"},
        ("router", "found router 'home' with 'laptop' below it; accepted: a router with nothing below it"),
    ),
    "a wrong key of what is added": (
        {"action": "add", "router": [{"name": "x", "presett": "home"}]},
        (
            "router[0].presett",
            "unknown key; accepted: name, preset, upstream, region, nat, nat_v6, firewall, ip_support, mtu, "
            "downstream_cidr, downstream_cidr_v6, downlink, block_icmp_frag_needed, port_mapping; "
            "did you mean 'preset'?",
        ),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_is(case: str) -> None:
    table, problem = BAD[case]
    assert problems(table)[0] == problem


def test_a_node_that_is_removed_and_added_again_gets_its_names_and_macs_but_other_addresses() -> None:
    removed = RemoveDevice("laptop").apply(HOME_AND_REGIONS)
    again = from_table(
        {"action": "add", "device": {"laptop": {"eth0": {"gateway": "home", "link": "wifi"}}}}
    ).apply(removed)
    before, after = HOME_AND_REGIONS.devices["laptop"], again.devices["laptop"]
    assert (after.ns, after.ifaces[0].mac, after.ifaces[0].port) == (
        before.ns,
        before.ifaces[0].mac,
        before.ifaces[0].port,
    )
    assert {*after.ifaces[0].addresses}.isdisjoint(before.ifaces[0].addresses)
    assert removed.wires.keys() == HOME_AND_REGIONS.wires.keys() - {("link", "laptop", "eth0")}
