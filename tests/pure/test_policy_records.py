"""What is kept of NATs and firewalls: events that add up to the state, a journal that replays what stands."""

from itertools import pairwise
from random import Random

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from patchbay.change.base import Change, Event
from patchbay.layout.layout import Layout
from patchbay.model.lab import LabSpec
from patchbay.model.nat import NatConfig
from patchbay.plan.change import between
from patchbay.plan.plan import forgiving
from patchbay.record.events import snapshot
from patchbay.record.journal import Record, final_state
from patchbay.record.trace import as_script
from tests.pure.fake_kernel import Kernel
from tests.pure.journals import command_of, journal_of, outcomes
from tests.pure.labs import QUICK, labs
from tests.pure.nft_text import read_commands
from tests.pure.policies import (
    ALL_PORTS,
    BLOCKS,
    LAB,
    after,
    built,
    device,
    firewall,
    flush,
    history,
    nat,
    plan,
    router,
)

seeds = st.integers(0, 2**32)
NS = router().ns


# Events


def events(change: Change, old: Layout = LAB) -> list[Event]:
    return list(change.events(old, change.apply(old)))


CUSTOM = {
    "mapping": "address-dependent",
    "filtering": "endpoint-independent",
    "port_allocation": "block:64",
    "hairpin": False,
    "udp_timeout": 2,
    "udp_stream_timeout": 300,
    "tcp_established_timeout": 7440,
    "protocols": ["udp"],
}
WALL = {"block_inbound": False, "outbound_tcp": [80, 443], "outbound_udp": "none"}
EVENTS: dict[str, tuple[Change, list[Event]]] = {
    "a preset": (nat("full-cone"), [("nat_changed", {"router": "r", "nat": "full-cone"})]),
    "a table": (nat(CUSTOM), [("nat_changed", {"router": "r", "nat": CUSTOM})]),
    "an object that equals a preset": (
        nat(NatConfig(filtering="address-dependent")),
        [("nat_changed", {"router": "r", "nat": "address-restricted"})],
    ),
    "no nat": (nat("none"), [("nat_changed", {"router": "r", "nat": "none"})]),
    "the same nat again": (nat("home"), [("nat_flushed", {"router": "r"})]),
    "what is forgotten": (flush("below"), [("nat_flushed", {"router": "below"})]),
    "a firewall": (firewall("corporate"), [("firewall_changed", {"router": "r", "firewall": "corporate"})]),
    "a firewall of its own kind": (
        firewall(WALL),
        [("firewall_changed", {"router": "r", "firewall": WALL})],
    ),
    "the same firewall again": (firewall("block-inbound"), []),
}


@pytest.mark.parametrize("case", EVENTS)
def test_one_is_told_of(case: str) -> None:
    change, expected = EVENTS[case]
    assert events(change) == expected


def test_blocks_that_hosts_get_are_no_event_of_their_router() -> None:
    assert [kind for kind, _ in events(device("four"), after(LAB, nat(ALL_PORTS)))] == ["device_added"]


def test_the_state_names_presets_and_has_the_fields_of_anything_else() -> None:
    state = snapshot(after(LAB, firewall(WALL), nat(CUSTOM)))["routers"]
    assert (state["r"]["nat"], state["r"]["firewall"]) == (CUSTOM, WALL)
    assert (state["below"]["nat"], state["below"]["firewall"]) == ("home", "none")
    # What a lab file may say, too.
    assert after(LAB, nat(state["r"]["nat"])).policies[NS].nat == NatConfig(**CUSTOM)


# The journal


def standing(*changes: Change) -> list[Record]:
    """What stands of a lab after changes, one after another."""
    plans, layout = [between(None, LAB)], LAB
    for change in changes:
        plans.append(plan(layout, change))
        layout = change.apply(layout)
    return final_state(journal_of(*plans).records())


def rules_of(records: list[Record], table: str) -> list[tuple[str, int]]:
    """(verb, change) of the commands for a table of router r that stand."""
    return [
        (verb, record.change)
        for record in records
        if record.tool == "nft" and record.ns == NS
        for verb, name, _ in read_commands(record.input)
        if name == table
    ]


def test_of_a_nat_the_last_that_was_loaded_stands_with_all_of_its_blocks() -> None:
    assert rules_of(standing(), "nat") == [("define", 0)]
    assert rules_of(standing(nat("full-cone")), "nat") == [("define", 1)]
    assert rules_of(standing(nat(BLOCKS)), "nat") == [("define", 1), *[("add", 1)] * 7]
    # A host that came later has its block from another change; a new table has them all again.
    assert rules_of(standing(nat(BLOCKS), device("four")), "nat")[8:] == [("add", 2)] * 2
    assert rules_of(standing(nat(BLOCKS), device("four"), flush()), "nat") == [
        ("define", 3),
        *[("add", 3)] * 9,
    ]


def test_of_a_nat_that_was_taken_away_only_the_zone_stands() -> None:
    (record,) = [it for it in standing(nat(BLOCKS), flush(), nat("none")) if it.owner == f"{NS}#nat"]
    assert [(verb, name) for verb, name, _ in read_commands(record.input)] == [("define", "nat")]
    assert "chain zone_prerouting" in record.input and "snat" not in record.input


def test_of_a_firewall_that_was_taken_away_nothing_stands_and_of_the_nat_all() -> None:
    found = standing(firewall("corporate"), firewall("none"))
    assert rules_of(found, "filter") == []
    assert rules_of(found, "nat") == [("define", 0)]


def test_of_a_timeout_the_last_stands() -> None:
    found = standing(nat({"udp_timeout": 2}), nat("home"))
    values = [it.argv[-1] for it in found if it.ns == NS and it.slot.endswith("conntrack_udp_timeout")]
    assert values == ["net/netfilter/nf_conntrack_udp_timeout=30"]


@QUICK
@given(labs(), seeds)
def test_whatever_routers_went_through_the_journal_builds_what_they_are(spec: LabSpec, seed: int) -> None:
    """After changes that stood, changes that failed, and changes that were taken back."""
    rng = Random(seed)
    layouts = list(history(spec, seed))
    journal = journal_of(between(None, layouts[0]))
    for old, new in pairwise(layouts):
        there = between(old, new)
        if rng.random() < 0.5:
            journal.add(outcomes([*there, *forgiving(between(new, old))]), undone=True)
        journal.add(outcomes(there), undone=False)
    found = final_state(journal.records())
    replayed, expected = Kernel(), built(layouts[-1])
    replayed.run(map(command_of, found))
    assert replayed.namespaces == expected.namespaces
    # As many commands for rules as building it needs at once: nothing of what was replaced.
    anew = final_state(journal_of(between(None, layouts[-1])).records())
    count = [
        sorted((it.ns, it.owner, it.slot) for it in records if it.tool == "nft") for records in (found, anew)
    ]
    assert count[0] == count[1]


def test_a_script_of_the_lab_has_the_rules_that_stand_after_each_other() -> None:
    journal, layout = journal_of(between(None, LAB)), LAB
    for change in (nat(BLOCKS), device("four"), flush(), firewall("none")):
        journal.add(outcomes(plan(layout, change)), undone=False)
        layout = change.apply(layout)
    found = final_state(journal.records())
    script = as_script(found, "changed")
    places = [script.index(record.input) for record in found if record.owner == f"{NS}#nat"]
    assert places == sorted(places) and len(places) == 6
    assert "delete table" not in script


def test_a_ruleset_that_was_loaded_by_a_call_that_failed_is_not_among_them() -> None:
    journal = journal_of(between(None, LAB))
    new = after(LAB, nat("corporate"))
    journal.add(outcomes([*between(LAB, new), *forgiving(between(new, LAB))]), undone=True)
    found = final_state(journal.records())
    assert rules_of(found, "nat") == [("define", 0)]
    assert found == final_state(journal_of(between(None, evolve(LAB))).records())
