"""What is kept of links: events that add up to the state, and a journal that replays only what stands."""

from patchbay.change.base import Change, Event
from patchbay.change.links import (
    BreakRegionLink,
    LinkRegions,
    LoseLink,
    RestoreRegionLink,
    SetDownlinkCondition,
    SetLinkCondition,
)
from patchbay.layout.wires import with_broken, with_conditions
from patchbay.model.link import Condition, Impairment, LinkCondition, Trace
from patchbay.record.state import snapshot
from tests.pure.labs import layout_of

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


LATE_SAID = LinkCondition(latency_ms=20)


def test_each_change_of_a_link_is_reported() -> None:
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
                ("service_restored", {"service": "relay", "node": "d", "iface": "eth0"}),
            ],
        ),
        (SetLinkCondition("d", "eth0"), []),
    ]
    layout = layout_of(LAB)
    for change, expected in changes:
        after = change.apply(layout)
        assert list(change.events(layout, after)) == expected
        layout = after


def test_a_trace_is_named_by_its_path() -> None:
    layout = with_conditions(layout_of(LAB), {LINK: REPLAYED})
    (iface,) = snapshot(layout)["devices"]["d"]["ifaces"]
    assert iface["link"] == {"up": {"trace": "/t"}}


def test_a_lost_link_is_down_until_its_condition_is_set_again() -> None:
    on = with_conditions(layout_of(LAB), {LINK: LATE})
    lost = with_broken(on, LINK, broken=True, lost=True)
    again = with_conditions(lost, {LINK: LATE})
    assert [snapshot(each)["devices"]["d"]["ifaces"][0].get("link_lost") for each in (on, lost, again)] == [
        None,
        True,
        None,
    ]
    assert list(SetLinkCondition("d", "eth0", LATE_SAID).events(lost, again)) == [
        ("service_restored", {"service": "relay", "node": "d", "iface": "eth0"})
    ]
