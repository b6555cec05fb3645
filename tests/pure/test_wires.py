"""Wires: their names beside all others, what they take and give back, and what follows from the rest."""

from ipaddress import ip_network

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from patchbay.layout.allocate import empty_layout, extend
from patchbay.layout.layout import Layout, WireKey
from patchbay.layout.wires import condition_of, region_key, with_broken, with_conditions
from patchbay.model.lab import (
    DeviceSpec,
    IfaceSpec,
    LabSpec,
    RegionLinkSpec,
    RegionSpec,
    RouterPreset,
    RouterSpec,
)
from patchbay.model.link import PERFECT, Condition, Impairment, LinkCondition
from patchbay.model.names import IfName, NsName
from tests.pure.labs import QUICK, labs, layout_of, one_by_one

LATE = Condition(Impairment(20), Impairment(20))
LOSSY = Condition(Impairment(loss_pct=1))
TWENTY = LinkCondition(latency_ms=20)

# Names that wires would have liked.
LIKED = ["wire1", "wire1-near", "wire1-lan", "wire2-far", "wire3-below", "below", "to-eu", "wire4"]


def names(layout: Layout) -> list[tuple[NsName, IfName]]:
    """Every interface of a layout, with its namespace."""
    found = [(node.ns, iface.name) for node in layout.nodes() for iface in node.ifaces]
    found += [(iface.router_ns, iface.port) for node in layout.nodes() for iface in node.ifaces]
    found += [(router.ns, router.lan.bridge) for router in layout.forwarders.values()]
    return found + [place for wire in layout.wires.values() for place in wire.names]


def macs(layout: Layout) -> list[str]:
    found = [router.lan.mac for router in layout.forwarders.values()]
    found += [mac for node in layout.nodes() for i in node.ifaces for mac in (i.mac, i.port_mac)]
    for wire in layout.wires.values():
        ends = (wire.near, wire.far) if wire.makes_far else (wire.near,)
        found += [wire.bridge_mac, *(mac for end in ends for mac in (end.mac, end.peer_mac))]
    return found


def crowded(*, conditioned_first: bool) -> Layout:
    """A router with a downlink, linked regions, and devices and routers below both with names of wires."""
    plain = LabSpec(
        regions=(RegionSpec("eu"), RegionSpec("us")),
        routers=(
            RouterSpec("r"),
            *(RouterSpec(f"{name}", region="us") for name in ("to-eu-2", "wire1-far")),
        ),
    )
    devices = LabSpec(devices=tuple(DeviceSpec(name, {"eth0": IfaceSpec("r")}) for name in LIKED))
    links: dict[WireKey, Condition] = {
        ("downlink", "r"): LATE,
        ("regions", "eu", "us"): LATE,
        **{("link", name, "eth0"): LOSSY for name in LIKED},
    }
    layout = extend(empty_layout(), plain)
    if conditioned_first:
        layout = with_conditions(layout, {("downlink", "r"): LATE, ("regions", "eu", "us"): LATE})
    return with_conditions(extend(layout, devices), links)


def test_no_interface_is_called_like_another() -> None:
    for conditioned_first in (False, True):
        layout = crowded(conditioned_first=conditioned_first)
        found = names(layout)
        assert len(layout.wires) == len(LIKED) + 2
        assert len({*found}) == len(found)
        assert all(1 <= len(name.encode()) <= 15 for _, name in found)
        assert len({(wire.ns, wire.index) for wire in layout.wires.values()}) == len(layout.wires)


def test_no_mac_is_that_of_another() -> None:
    found = macs(crowded(conditioned_first=False))
    assert len({*found}) == len(found)


@QUICK
@given(labs())
def test_names_and_macs_are_unique_in_any_lab(spec: LabSpec) -> None:
    layout = one_by_one(spec)[-1]
    for found in (names(layout), macs(layout)):
        assert len({*found}) == len(found)


@QUICK
@given(labs())
def test_the_names_that_are_taken_are_those_of_ports_and_of_ways_to_other_regions(spec: LabSpec) -> None:
    layout = one_by_one(spec)[-1]
    links = [wire for key, wire in layout.wires.items() if key[0] == "regions"]
    for ns, taken in layout.allocations.ifnames.items():
        ways = {end.peer for wire in links for end in (wire.far, wire.near) if end.peer_ns == ns}
        ports = {i.port for node in layout.nodes() for i in node.ifaces if i.router_ns == ns}
        assert taken == ways | ports | {"lan", "wan", "lo", "all", "default"}


def test_a_wire_never_has_the_names_of_an_earlier_one() -> None:
    """So the new one can be there before the old one is gone, whatever else changes with it."""
    layout = crowded(conditioned_first=False)
    links = {key: wire.condition for key, wire in layout.wires.items() if key[0] != "regions"}
    seen: set[tuple[str, str]] = set()
    for _ in range(100):
        found = {place for key in links for place in layout.wires[key].names}
        assert seen.isdisjoint(found)
        assert all(len(name.encode()) <= 15 for _, name in found)
        seen |= found
        off = with_conditions(layout, dict.fromkeys(links, PERFECT))
        assert off.allocations == layout.allocations
        layout = with_conditions(off, links)


def test_a_perfect_link_has_no_wire_but_between_regions() -> None:
    layout = crowded(conditioned_first=False)
    layout = with_conditions(layout, dict.fromkeys(layout.wires, PERFECT))
    assert list(layout.wires) == [("regions", "eu", "us")]
    assert (
        condition_of(layout, ("regions", "eu", "us")) == condition_of(layout, ("link", "x", "y")) == PERFECT
    )


@QUICK
@given(labs(), st.integers(0, 2**32))
def test_the_same_input_gives_the_same_wires(spec: LabSpec, seed: int) -> None:
    one, other = extend(empty_layout(), spec), extend(empty_layout(), spec)
    assert one.wires == other.wires
    assert [*one.wires] == [*other.wires]


def test_a_link_of_regions_is_found_from_either_end() -> None:
    layout = crowded(conditioned_first=False)
    assert region_key(layout, "eu", "us") == region_key(layout, "us", "eu") == ("regions", "eu", "us")
    assert region_key(empty_layout(), "us", "eu") == ("regions", "us", "eu")


# What follows from the rest


def below(*mtus: int | None) -> Layout:
    spec = LabSpec(
        routers=(RouterSpec("r", downlink=TWENTY),),
        devices=tuple(DeviceSpec(f"d{n}", {"eth0": IfaceSpec("r")}, mtu=mtu) for n, mtu in enumerate(mtus)),
    )
    return one_by_one(spec)[-1]


def test_a_downlink_carries_what_all_that_is_below_it_do() -> None:
    mtus = [below(*mtus).wires["downlink", "r"].mtu for mtus in [(), (None,), (1300,), (9000,), (9000, 4000)]]
    assert mtus == [None, None, None, 9000, 4000]
    # The least of a bridge's ports, none of which is below 1500.
    assert below(9000, None).wires["downlink", "r"].mtu is None
    assert below(9000, 1300).wires["downlink", "r"].mtu is None


def test_a_link_carries_what_its_device_does() -> None:
    layout = below(9000, 1300, None)
    layout = with_conditions(layout, {("link", f"d{n}", "eth0"): LOSSY for n in range(3)})
    assert [layout.wires["link", f"d{n}", "eth0"].mtu for n in range(3)] == [9000, None, None]


def test_a_live_link_is_as_one_that_was_there_from_the_start() -> None:
    plain = with_conditions(below(9000), {("downlink", "r"): PERFECT})
    assert plain.wires == {}
    (wire,) = with_conditions(plain, {("downlink", "r"): LATE}).wires.values()
    (first,) = below(9000).wires.values()
    assert (wire.condition, wire.mtu, wire.bridge, first.bridge) == (LATE, first.mtu, "wire2", "wire1")
    apart = layout_of(LINKED.replace("latencies = { us = 40 }", ""))
    linked = with_conditions(apart, {("regions", "eu", "us"): Condition(Impairment(40), Impairment(40))})
    assert linked.wires == layout_of(LINKED).wires


LINKED = """
[region.eu]
latencies = { us = 40 }
[region.us]
[[router]]
name = "berlin"
preset = "public"
region = "eu"
"""


def ways(layout: Layout, key: WireKey = ("regions", "eu", "us")) -> set[tuple[str, str, str, str | None]]:
    return {
        (route.ns, str(route.prefix), route.dev, str(route.via) if route.via else None)
        for route in layout.wires[key].routes
    }


def test_linked_regions_know_the_way_to_each_other_and_to_what_is_behind() -> None:
    layout = layout_of(LINKED)
    eu, us, berlin = layout.region("eu"), layout.region("us"), layout.router("berlin")
    assert eu and us and berlin
    gateways = {region.name: [str(a.ip) for a in region.lan.addresses] for region in (eu, us)}
    assert ways(layout) == {
        *((eu.ns, str(ip_network(a)), "to-us", None) for a in gateways["us"]),
        *((us.ns, str(ip_network(a)), "to-eu", None) for a in gateways["eu"]),
        *((eu.ns, str(n), "to-us", gateways["us"][n.version == 6]) for n in us.networks),
        *((us.ns, str(n), "to-eu", gateways["eu"][n.version == 6]) for n in eu.networks),
        *((us.ns, str(n), "to-eu", gateways["eu"][n.version == 6]) for n in berlin.networks),
    }
    assert {network.version for network in berlin.networks} == {4, 6}


def test_a_router_that_comes_later_is_behind_the_link_too() -> None:
    before = layout_of(LINKED)
    after = extend(
        before,
        LabSpec(routers=(RouterSpec("boston", region="us"), RouterSpec("b", RouterPreset.HOME, "boston"))),
    )
    boston = after.router("boston")
    assert boston
    assert {(ns, prefix) for ns, prefix, _, _ in ways(after) - ways(before)} == {
        ("region-eu", str(network)) for network in boston.networks
    }
    assert ways(before) < ways(after)


def test_a_router_below_the_exchange_is_behind_no_link() -> None:
    before = layout_of(LINKED)
    after = extend(before, LabSpec(routers=(RouterSpec("elsewhere"),)))
    assert after.wires == before.wires


def test_regions_that_come_later_may_be_linked() -> None:
    link = RegionLinkSpec("asia", "eu", TWENTY)
    layout = extend(layout_of(LINKED), LabSpec(regions=(RegionSpec("asia"),), region_links=(link,)))
    assert [*layout.wires] == [("regions", "eu", "us"), ("regions", "asia", "eu")]
    assert layout.wires["regions", "asia", "eu"].ns == "region-eu"


# Broken and lost


def test_setting_a_lost_link_restores_it_and_a_broken_link_stays_broken() -> None:
    layout, key = layout_of(LINKED), ("regions", "eu", "us")
    wire = layout.wires[key]
    broken = with_broken(layout, key, broken=True)
    assert broken.wires[key] == evolve(wire, broken=True)
    assert with_broken(broken, key, broken=False) == layout
    assert with_conditions(broken, {key: LOSSY}).wires[key] == evolve(wire, condition=LOSSY, broken=True)
    lost = with_broken(layout, key, broken=True, lost=True)
    assert with_conditions(lost, {key: LOSSY}).wires[key] == evolve(wire, condition=LOSSY)
