"""Plans of wires, carried out on a fake kernel: on and off, one condition to another, broken and mended."""

from collections.abc import Callable, Iterator
from random import Random
from unittest.mock import patch

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from patchbay.layout.allocate import empty_layout, extend
from patchbay.layout.layout import Layout, WireKey
from patchbay.layout.wires import with_broken, with_conditions
from patchbay.model.lab import DeviceSpec, IfaceSpec, LabSpec, RouterSpec
from patchbay.model.link import (
    LINK_PRESETS,
    PERFECT,
    Condition,
    Emulator,
    Impairment,
    LinkPreset,
    Trace,
    merged,
)
from patchbay.model.names import IfName
from patchbay.plan import view
from patchbay.plan.change import between
from patchbay.plan.plan import Plan
from patchbay.tools.commands import CheckQdiscs, Command, EndService, StartService, Tc
from tests.pure.fake_kernel import Kernel, lanes
from tests.pure.fake_packets import crossed, owner
from tests.pure.labs import QUICK, labs, layout_of, linked, one_by_one, random_condition, random_lab

seeds = st.integers(0, 2**32)
EMULATORS = [Emulator.NETEM, Emulator.USERSPACE]
LATE = Condition(Impairment(20), Impairment(20))


@pytest.fixture(autouse=True, scope="module")
def few_nodes_with_arp() -> Iterator[None]:
    with patch.object(view, "NODES_WITH_ARP", 5):
        yield


def carried_out(plan: Plan, kernel: Kernel | None = None, seed: int | None = None) -> Kernel:
    """The kernel after a plan, in an order that its stages allow: `seed` chooses one."""
    kernel = kernel.copy() if kernel else Kernel()
    kernel.run(plan if seed is None else mixed(plan, Random(seed)))
    kernel.made.sort()
    return kernel


def mixed(plan: Plan, rng: Random) -> Iterator[Command]:
    """Namespaces in turns, and beside the next stages that need not wait; services last in each part."""
    waiting: list[list[Command]] = []
    for stage, (make, configure) in zip(plan.stages, lanes(plan), strict=True):
        while stage.barrier and waiting:
            yield from one_of(waiting, rng)
        yield from make
        services = [c for c in stage.configure if isinstance(c, StartService | EndService)]
        part = [[c for c in commands if c not in services] for commands in configure.values()]
        part = [commands for commands in part if commands]
        if services:
            while part:
                yield from one_of(part, rng)
            yield from services
        waiting += part
    while waiting:
        yield from one_of(waiting, rng)


def one_of(waiting: list[list[Command]], rng: Random) -> Iterator[Command]:
    lane = rng.choice(waiting)
    yield lane.pop(0)
    if not lane:
        waiting.remove(lane)


def layout_with(spec: LabSpec, emulator: Emulator) -> Layout:
    return evolve(extend(empty_layout(), spec), emulator=emulator)


def links_of(layout: Layout) -> list[WireKey]:
    """Every link that may have a condition."""
    found: list[WireKey] = [("link", d.name, i.name) for d in layout.devices.values() for i in d.ifaces]
    found += [("downlink", router.name) for router in layout.forwarders.values() if router.kind == "router"]
    return found + [key for key in layout.wires if key[0] == "regions"]


def some_condition(rng: Random) -> Condition:
    chosen = rng.randrange(6)
    if chosen == 0:
        return PERFECT
    if chosen == 1:
        return Condition(Impairment(5, trace=Trace("/t", 1000)), Impairment(rate_kbit=500))
    return merged(PERFECT, random_condition(rng))


def altered(layout: Layout, seed: int) -> Layout:
    """The lab with most of its links in other conditions."""
    rng = Random(seed)
    chosen = [key for key in links_of(layout) if rng.random() < 0.7]
    return with_conditions(layout, {key: some_condition(rng) for key in chosen})


@pytest.mark.parametrize("emulator", EMULATORS)
@QUICK
@given(labs(), seeds)
def test_building_and_taking_away_leaves_the_kernel_as_it_was(
    emulator: Emulator, spec: LabSpec, seed: int
) -> None:
    layouts = [evolve(layout, emulator=emulator) for layout in one_by_one(spec)]
    old, new = layouts[Random(seed).randrange(len(layouts))], layouts[-1]
    before = carried_out(between(None, old))
    after = carried_out(between(old, new), before, seed)
    assert after == carried_out(between(None, new))
    back = carried_out(between(new, old), after, seed)
    assert (back.namespaces, back.services) == (before.namespaces, before.services)


@pytest.mark.parametrize("emulator", EMULATORS)
@QUICK
@given(labs(), seeds, seeds)
def test_whatever_links_become_the_kernel_is_as_if_they_had_been_made_so(
    emulator: Emulator, spec: LabSpec, one: int, other: int
) -> None:
    old = layout_with(spec, emulator)
    kernel = carried_out(between(None, old))
    for seed in (one, other):
        new = altered(old, seed)
        kernel = carried_out(between(old, new), kernel, seed)
        assert kernel == carried_out(between(None, new))
        old = new


@pytest.mark.parametrize("emulator", EMULATORS)
@QUICK
@given(labs(), seeds)
def test_a_change_that_failed_anywhere_can_be_undone(emulator: Emulator, spec: LabSpec, seed: int) -> None:
    old = layout_with(spec, emulator)
    new = altered(old, seed)
    before = carried_out(between(None, old))
    forwards = list(mixed(between(old, new), Random(seed)))
    broken = before.copy()
    broken.run(forwards[: Random(seed).randint(0, len(forwards))])
    back = carried_out(between(new, old, undoing=True), broken)
    assert (back.namespaces, back.services) == (before.namespaces, before.services)


@pytest.mark.parametrize("emulator", EMULATORS)
@pytest.mark.parametrize("seed", range(5))
def test_a_router_may_be_replaced_with_its_downlink_in_one_plan(emulator: Emulator, seed: int) -> None:
    first, second = (
        evolve(
            extend(
                empty_layout(),
                LabSpec(routers=(RouterSpec("r", mtu=mtu, downlink=LINK_PRESETS[LinkPreset.WIFI_BAD]),)),
            ),
            emulator=emulator,
        )
        for mtu in (None, 1400)
    )
    kernel = carried_out(between(first, second), carried_out(between(None, first)), seed)
    wanted = carried_out(between(None, second))
    assert (kernel.namespaces, kernel.services) == (wanted.namespaces, wanted.services)


ALL_KINDS = linked(random_lab(7, 2, 4, 4), 11)


@pytest.mark.parametrize("emulator", EMULATORS)
def test_switching_on_and_off_leaves_nothing_however_often(emulator: Emulator) -> None:
    layout = layout_with(ALL_KINDS, emulator)
    assert {key[0] for key in layout.wires} == {"link", "downlink", "regions"}
    conditions = {key: wire.condition for key, wire in layout.wires.items() if key[0] != "regions"}
    off = with_conditions(layout, dict.fromkeys(conditions, PERFECT))
    before, kernel = carried_out(between(None, off)), carried_out(between(None, off))
    for _ in range(3):
        on = with_conditions(off, conditions)
        kernel.run(between(off, on))
        off = with_conditions(on, dict.fromkeys(conditions, PERFECT))
        kernel.run(between(on, off))
        assert (kernel.namespaces, kernel.services) == (before.namespaces, before.services)


@QUICK
@given(labs(), seeds)
def test_only_what_changed_is_done_again(spec: LabSpec, seed: int) -> None:
    old = layout_with(spec, Emulator.NETEM)
    key = Random(seed).choice([*old.wires, *links_of(old)])
    if key not in old.wires:
        return
    new = with_conditions(old, {key: merged(old.wires[key].condition, random_condition(Random(seed)))})
    wire = new.wires.get(key)
    if wire is None:
        return
    done = [command for command in between(old, new) if isinstance(command, Tc | StartService)]
    assert {command.owner for command in done} <= {wire.owner}
    read_back = [dev for c in between(old, new) if isinstance(c, CheckQdiscs) for dev in c.wanted]
    assert {*read_back} <= {wire.near.name, wire.far.name}


@QUICK
@given(labs())
def test_every_qdisc_that_is_set_is_read_back_after_it_was(spec: LabSpec) -> None:
    commands = list(between(None, layout_with(spec, Emulator.NETEM)))
    checks = {
        (c.ns, dev): n for n, c in enumerate(commands) if isinstance(c, CheckQdiscs) for dev in c.wanted
    }
    done = {(c.ns, IfName(c.args[3])): n for n, c in enumerate(commands) if isinstance(c, Tc) and c.ns}
    assert checks.keys() == done.keys()
    assert all(done[place] < checks[place] for place in done)


def steps(old: Layout, new: Layout) -> list[tuple[bool, set[str]]]:
    """Of each stage, whether it waits for everything before it, and what it does."""
    return [
        (stage.barrier, {" ".join(command.argv[:2]) for command in stage})
        for stage in between(old, new).stages
    ]


def test_packets_are_led_through_a_relay_when_it_runs_and_it_ends_before_they_are_led_past_it() -> None:
    on = evolve(layout_of(BROKEN), emulator=Emulator.USERSPACE)
    off = with_conditions(on, {("link", "here", "eth0"): PERFECT})
    there = with_conditions(off, {("link", "here", "eth0"): LATE})
    assert steps(off, there) == [
        (False, {"ip link"}),
        (True, {"python3 -m"}),
        (True, {"ip link"}),
    ]
    assert steps(there, off) == [(True, {"pkill --full"}), (True, {"ip link"})]


# Packets

BROKEN = """
[region.eu]
latencies = { us = 40 }
[region.us]
[[router]]
name = "berlin"
preset = "public"
region = "eu"
downlink = "wifi"
[[router]]
name = "boston"
preset = "public"
region = "us"
[device.here.eth0]
gateway = "berlin"
link = "mobile-3g"
[device.there.eth0]
gateway = "boston"
"""
EU_US = ("regions", "eu", "us")


@pytest.mark.parametrize("emulator", EMULATORS)
@pytest.mark.parametrize("version", [4, 6])
def test_packets_between_linked_regions_go_over_their_link_and_never_round_it(
    emulator: Emulator, version: int
) -> None:
    layout = evolve(layout_of(BROKEN), emulator=emulator)
    target = next(a.ip for a in layout.devices["there"].ifaces[0].addresses if a.version == version)
    kernel = carried_out(between(None, layout))
    direct = ["here", "berlin", "region-eu", "region-us", "boston", "there"]
    assert crossed(kernel, target, "here") == direct
    cut = with_broken(layout, EU_US, broken=True)
    kernel.run(between(layout, cut))
    assert owner(kernel, target, "here") is None
    assert crossed(kernel, target, "here") == ["here", "berlin", "region-eu"]
    # What is elsewhere is still there.
    assert crossed(kernel, layout.ix.lan.addresses[version == 6].ip, "here") == [*direct[:3], "ix"]
    kernel.run(between(cut, layout))
    assert kernel == carried_out(between(None, layout))


def test_a_link_that_is_broken_keeps_its_condition_and_may_get_another() -> None:
    layout = with_broken(evolve(layout_of(BROKEN), emulator=Emulator.NETEM), EU_US, broken=True)
    other = with_conditions(layout, {EU_US: Condition(Impairment(loss_pct=1))})
    assert other.wires[EU_US].broken
    kernel = carried_out(between(layout, other), carried_out(between(None, layout)))
    assert kernel == carried_out(between(None, other))
    assert not kernel.namespaces["region-us"].links[other.wires[EU_US].far.name].up


@pytest.mark.parametrize("key", [("link", "here", "eth0"), ("downlink", "berlin")])
def test_a_lost_link_carries_nothing_until_its_condition_is_set_again(key: WireKey) -> None:
    layout = evolve(layout_of(BROKEN), emulator=Emulator.USERSPACE)
    gateway = layout.devices["here"].ifaces[0].gateways[0]
    kernel = carried_out(between(None, layout))
    lost = with_broken(layout, key, broken=True, lost=True)
    kernel.run(between(layout, lost))
    assert kernel == carried_out(between(None, lost))
    assert owner(kernel, gateway, "here") is None
    again = with_conditions(lost, {key: LATE})
    kernel.run(between(lost, again))
    assert kernel == carried_out(between(None, again))
    assert owner(kernel, gateway, "here") == "berlin"


def crosses(kernel: Kernel, wire: str) -> Callable[[str], bool]:
    """Whether the interface of another namespace is reached through a bridge of this one."""
    ns = kernel.namespaces["berlin"]
    return lambda port: ns.links[port].master == wire


def test_of_two_devices_only_the_one_with_a_condition_is_behind_a_wire() -> None:
    devices = tuple(DeviceSpec(name, {"eth0": IfaceSpec("berlin")}) for name in ("one", "two"))
    plain = extend(empty_layout(), LabSpec(routers=(RouterSpec("berlin"),), devices=devices))
    layout = with_conditions(plain, {("link", "one", "eth0"): LATE})
    kernel = carried_out(between(None, layout))
    assert crosses(kernel, "wire1")("one") and not crosses(kernel, "wire1")("two")
    one, two = (layout.devices[name].ifaces[0].addresses[0].ip for name in ("one", "two"))
    assert owner(kernel, one, "two") == "one" and owner(kernel, two, "one") == "two"
    assert owner(kernel, one, "berlin") == "one" and owner(kernel, two, "berlin") == "two"


@QUICK
@given(st.integers(0, 2**32))
def test_in_a_lab_of_many_nodes_regions_find_each_other_too(seed: int) -> None:
    """Where every node has permanent neighbours, and regions are linked before or after that."""
    spec = linked(random_lab(seed, 2, 6, 3), 0)
    for emulator in EMULATORS:
        layout = layout_with(spec, emulator)
        kernel = carried_out(between(None, layout))
        for key, wire in layout.wires.items():
            if key[0] == "regions":
                here, there = (layout.region(name) for name in key[1:])
                assert here and there
                for address in there.lan.addresses:
                    assert crossed(kernel, address.ip, here.ns) == [here.ns, there.ns], wire.title
