"""What is kept of links: events that add up to the state, and a journal that replays only what stands."""

from itertools import pairwise
from random import Random

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from patchbay.change.base import Change, Event
from patchbay.change.links import (
    BreakRegionLink,
    LinkRegions,
    LoseLink,
    RestoreRegionLink,
    SetDownlinkCondition,
    SetLinkCondition,
)
from patchbay.layout.layout import Layout, WireKey
from patchbay.layout.wires import with_broken, with_conditions
from patchbay.model.lab import LabSpec
from patchbay.model.link import PERFECT, Condition, Emulator, Impairment, LinkCondition, Trace, merged
from patchbay.plan.change import between
from patchbay.record.events import snapshot
from patchbay.record.journal import Journal, Record, final_state
from patchbay.record.trace import as_script, select
from tests.pure.fake_kernel import Kernel
from tests.pure.journals import command_of, journal_of
from tests.pure.labs import QUICK, labs, layout_of, one_by_one, random_condition

LAB = """
[region.eu]
latencies = { us = 40 }
[region.us]
[[router]]
name = "r"
region = "eu"
[device.d.eth0]
gateway = "r"
"""
LINK, DOWNLINK, REGIONS = ("link", "d", "eth0"), ("downlink", "r"), ("regions", "eu", "us")
LATE = Condition(Impairment(20), Impairment(20))
REPLAYED = Condition(Impairment(trace=Trace("/t", 1000)))


def history(spec: LabSpec, seed: int) -> list[tuple[Layout, WireKey | None]]:
    """Layouts of a lab whose links change, break and are lost, with the link that was lost just before."""
    rng = Random(seed)
    found: list[tuple[Layout, WireKey | None]] = [(layout, None) for layout in one_by_one(spec)]
    for _ in range(8):
        layout = found[-1][0]
        links: list[WireKey] = [("link", d.name, i.name) for d in layout.devices.values() for i in d.ifaces]
        key = rng.choice([*links, *layout.wires, ("downlink", spec.routers[0].name)])
        if key in layout.wires and rng.random() < 0.5:
            wire = layout.wires[key]
            lost = key[0] != "regions" or rng.random() < 0.3
            if wire.broken and key[0] == "regions":
                found.append((with_broken(layout, key, broken=False), None))
            elif not wire.broken:
                found.append((with_broken(layout, key, broken=True, lost=lost), key if lost else None))
        else:
            condition = rng.choice([PERFECT, merged(PERFECT, random_condition(rng))])
            found.append((with_conditions(layout, {key: condition}), None))
    return found


LATE_SAID = LinkCondition(latency_ms=20)


def test_each_change_of_a_link_is_told_of() -> None:
    late = {way: {"latency_ms": 20} for way in ("up", "down")}
    changes: list[tuple[Change, list[Event]]] = [
        (
            SetLinkCondition("d", "eth0", LATE_SAID),
            [("link_condition_changed", {"node": "d", "iface": "eth0", "condition": late})],
        ),
        (SetLinkCondition("d", "eth0", LATE_SAID), []),
        (
            SetDownlinkCondition("r", LATE_SAID),
            [("link_condition_changed", {"node": "r", "iface": "downlink", "condition": late})],
        ),
        (
            LinkRegions("us", "eu", LinkCondition(latency_ms=1, up=Impairment(0))),
            [("region_linked", {"a": "eu", "b": "us", "condition": {"up": {"latency_ms": 1}}})],
        ),
        (BreakRegionLink("us", "eu"), [("region_link_broken", {"a": "eu", "b": "us"})]),
        (BreakRegionLink("us", "eu"), []),
        (RestoreRegionLink("us", "eu"), [("region_link_restored", {"a": "eu", "b": "us"})]),
        (RestoreRegionLink("us", "eu"), []),
        (LoseLink(LINK), []),
        (
            SetLinkCondition("d", "eth0"),
            [
                ("link_condition_changed", {"node": "d", "iface": "eth0", "condition": {}}),
                ("link_up", {"node": "d", "iface": "eth0"}),
            ],
        ),
        (SetLinkCondition("d", "eth0"), []),
    ]
    layout = layout_of(LAB)
    for change, expected in changes:
        after = change.apply(layout)
        assert list(change.events(layout, after)) == expected
        layout = after


def test_a_trace_is_told_of_by_its_path() -> None:
    layout = with_conditions(layout_of(LAB), {LINK: REPLAYED})
    (iface,) = snapshot(layout)["devices"]["d"]["ifaces"]
    assert iface["link"] == {"up": {"trace": "/t"}}


def test_a_link_that_was_lost_is_down_until_it_is_set_anew() -> None:
    on = with_conditions(layout_of(LAB), {LINK: LATE})
    lost = with_broken(on, LINK, broken=True, lost=True)
    again = with_conditions(lost, {LINK: LATE})
    assert [snapshot(each)["devices"]["d"]["ifaces"][0].get("link_down") for each in (on, lost, again)] == [
        None,
        True,
        None,
    ]
    assert list(SetLinkCondition("d", "eth0", LATE_SAID).events(lost, again)) == [
        ("link_up", {"node": "d", "iface": "eth0"})
    ]


# The journal


def journal_through(*layouts: Layout) -> Journal:
    plans = [between(None, layouts[0])]
    plans += [between(old, new) for old, new in pairwise(layouts)]
    return journal_of(*plans)


def replayed(records: list[Record]) -> Kernel:
    kernel = Kernel()
    kernel.run(map(command_of, records))
    return kernel


def built(layout: Layout) -> Kernel:
    kernel = Kernel()
    kernel.run(between(None, layout))
    return kernel


WISHES: dict[str, dict[WireKey, Condition]] = {
    "nothing": {LINK: PERFECT, DOWNLINK: PERFECT},
    "latency": {LINK: LATE, DOWNLINK: PERFECT},
    "a rate": {LINK: Condition(Impairment(rate_kbit=1000)), DOWNLINK: LATE},
    "a trace": {LINK: REPLAYED, DOWNLINK: LATE},
    "one direction": {LINK: Condition(Impairment(loss_pct=1)), DOWNLINK: REPLAYED},
}


EMULATORS = [Emulator.NETEM, Emulator.USERSPACE]


def replays_the_last_of(*layouts: Layout) -> None:
    standing = final_state(journal_through(*layouts).records())
    made, wanted = replayed(standing), built(layouts[-1])
    assert (made.namespaces, made.helpers) == (wanted.namespaces, wanted.helpers)
    owners = {wire.owner for wire in layouts[-1].wires.values()}
    assert {r.owner for r in standing if "#" in r.owner} == owners
    tools = [record.argv for record in standing if record.tool in ("tc", "pkill")]
    assert not [argv for argv in tools if argv[0] == "pkill" or "-j" in argv or "del" in argv]


@pytest.mark.parametrize("emulator", EMULATORS)
@pytest.mark.parametrize("last", WISHES)
@pytest.mark.parametrize("first", WISHES)
def test_the_journal_replays_only_what_stands(first: str, last: str, emulator: Emulator) -> None:
    """On, changed, off, and on again: in every order, it is as if only the last had been."""
    plain = evolve(layout_of(LAB), emulator=emulator)
    one = with_conditions(plain, WISHES[first])
    off = with_conditions(one, WISHES["nothing"])
    replays_the_last_of(plain, one, off, with_conditions(off, WISHES[last]))
    replays_the_last_of(one, with_conditions(one, WISHES[last]))


@pytest.mark.parametrize("emulator", EMULATORS)
@pytest.mark.parametrize("first", WISHES)
def test_the_journal_replays_nothing_of_what_was_switched_off(first: str, emulator: Emulator) -> None:
    plain = evolve(layout_of(LAB), emulator=emulator)
    one = with_conditions(plain, WISHES[first])
    replays_the_last_of(plain, one, with_conditions(one, WISHES["nothing"]))


def test_of_a_helper_only_the_last_start_stands() -> None:
    plain = evolve(layout_of(LAB), emulator=Emulator.USERSPACE)
    layouts = [plain, with_conditions(plain, {LINK: LATE}), with_conditions(plain, {LINK: REPLAYED})]
    records = final_state(journal_through(*layouts).records())
    started = [r.argv for r in records if r.tool == "python3" and r.owner.startswith("d#")]
    assert len(started) == 1 and "trace=/t" in started[0]


@pytest.mark.parametrize("broken", [True, False])
def test_a_broken_link_of_regions_is_broken_in_the_replay_too(broken: bool) -> None:
    layout = evolve(layout_of(LAB), emulator=Emulator.NETEM)
    cut = with_broken(layout, REGIONS, broken=True)
    layouts = [layout, cut] if broken else [layout, cut, layout]
    records = final_state(journal_through(*layouts).records())
    assert replayed(records).namespaces == built(layouts[-1]).namespaces


@QUICK
@given(labs(), st.integers(0, 2**32))
def test_whatever_a_lab_went_through_its_journal_builds_what_it_is(spec: LabSpec, seed: int) -> None:
    layouts = [evolve(layout, emulator=Emulator.NETEM) for layout, _ in history(spec, seed)]
    made, wanted = replayed(final_state(journal_through(*layouts).records())), built(layouts[-1])
    assert (made.namespaces, made.helpers) == (wanted.namespaces, wanted.helpers)


def test_the_records_of_a_node_hold_those_of_its_links() -> None:
    layout = with_conditions(evolve(layout_of(LAB), emulator=Emulator.NETEM), {LINK: LATE})
    records = select(journal_through(layout).records(), everything=False, node_ns="d")
    assert {r.owner for r in records} >= {"d", "d#eth0"}
    assert any(r.tool == "tc" for r in records)


def test_the_script_starts_relays_and_has_no_read_back() -> None:
    layout = with_conditions(
        evolve(layout_of(LAB), emulator=Emulator.NETEM), {LINK: REPLAYED, DOWNLINK: LATE}
    )
    script = as_script(final_state(journal_through(layout).records()), "lab")
    assert script.count("nsenter --net=/run/netns/r python3 -m patchbay.emulator.relay --far d --near") == 1
    assert "tc -j" not in script
