"""Events, and the state that they add up to."""

import json
from collections.abc import Iterable
from ipaddress import ip_address

import trio
import trio.testing
from hypothesis import given

from patchbay.change.base import Change
from patchbay.change.names import AddName, RemoveName
from patchbay.change.nodes import Add
from patchbay.layout.allocate import empty_layout
from patchbay.layout.layout import Layout
from patchbay.model.lab import LabSpec
from patchbay.record.events import EventLog, LabEvent
from patchbay.record.state import new_state, reduce_events, snapshot
from tests.pure.labs import QUICK, additions, labs, layout_of


def told(changes: Iterable[Change], layout: Layout | None = None) -> tuple[EventLog, Layout]:
    """What changes of a lab with nothing in it say of themselves, and what the lab is then."""
    log, layout = EventLog(), layout or empty_layout()
    for change in changes:
        old, layout = layout, change.apply(layout)
        for kind, fields in change.events(old, layout):
            log.add(kind, **fields)
    return log, layout


@QUICK
@given(labs())
def test_the_events_add_up_to_the_snapshot(spec: LabSpec) -> None:
    for changes in ([*additions(spec)], [Add(spec)]):
        log, layout = told(changes)
        assert reduce_events(log.events) == snapshot(layout)


@QUICK
@given(labs())
def test_the_lines_of_the_file_add_up_to_the_snapshot_too(spec: LabSpec) -> None:
    log, layout = told(additions(spec))
    lines = [event.to_line() for event in log.events]
    assert all(line.count("\n") == 1 and line.endswith("\n") for line in lines)
    events = []
    for line in lines:
        fields = json.loads(line)
        events.append(LabEvent(fields.pop("opid"), fields.pop("timestamp"), fields.pop("kind"), fields))
    state = reduce_events(events)
    assert state == json.loads(json.dumps(snapshot(layout)))


@QUICK
@given(labs())
def test_each_node_has_one_event_of_its_kind(spec: LabSpec) -> None:
    events = told(additions(spec))[0].events
    assert [(event.kind, event.fields["name"]) for event in events if event.kind != "region_linked"] == [
        *(("region_added", region.name) for region in spec.regions),
        *(("router_added", router.name) for router in spec.routers),
        *(("device_added", device.name) for device in spec.devices),
    ]
    assert [event.opid for event in events] == list(range(1, len(events) + 1))


def test_names_are_part_of_the_state() -> None:
    one, two = ip_address("192.0.2.1"), ip_address("2001:db8::2")
    log, layout = told([AddName("x", (one,)), AddName("X.", (two,), "ix"), AddName("x", (two, one))])
    assert reduce_events(log.events) == snapshot(layout)
    assert snapshot(layout)["dns"] == {"": {"x": ["192.0.2.1", "2001:db8::2"]}, "ix": {"x": ["2001:db8::2"]}}


def test_a_removed_name_is_no_part_of_the_state() -> None:
    one, two = ip_address("192.0.2.1"), ip_address("2001:db8::2")
    added = (AddName("x", (one, two)), AddName("y", (one,)), AddName("x", (one,), "ix"))
    log, layout = told([*added, RemoveName("x", (one,)), RemoveName("Y."), RemoveName("x", node="ix")])
    assert reduce_events(log.events) == snapshot(layout)
    assert snapshot(layout)["dns"] == {"": {"x": ["2001:db8::2"]}}


def test_an_event_of_another_kind_changes_no_state() -> None:
    log = EventLog()
    log.add("command_started", node="x", argv=["true"], pid=1)
    assert reduce_events(log.events) == new_state()


def test_the_state_has_label_exchange_and_status() -> None:
    log = EventLog()
    log.add("lab_created", label="x", prefix="lab1", exchange={"name": "ix"})
    assert reduce_events(log.events) == {
        **new_state(),
        "label": "x",
        "status": "running",
        "exchange": {"name": "ix"},
    }
    for kind in ("lab_stopping", "lab_stopped"):
        log.add(kind)
        assert reduce_events(log.events)["status"] == kind.removeprefix("lab_")


def test_the_state_of_a_lab_tells_what_a_user_would_ask() -> None:
    layout = layout_of("""
        [region.eu]
        [[router]]
        name = "home"
        preset = "home"
        region = "eu"
        [device.laptop]
        mtu = 1400
        [device.laptop.eth0]
        gateway = "home"
    """)
    state = snapshot(layout)
    home, laptop = state["routers"]["home"], state["devices"]["laptop"]
    assert {
        key: home[key] for key in ("upstream", "region", "nat", "firewall", "ip_support", "downstream")
    } == {
        "upstream": "eu",
        "region": "eu",
        "nat": "home",
        "firewall": "block-inbound",
        "ip_support": "dual-stack",
        "downstream": ["10.0.0.0/16", "fd00::/48"],
    }
    assert home["uplink"]["addresses"] == ["26.1.0.2/32", "2d01:0:0:1::2/128"]
    assert laptop["default_via"] == "eth0"
    assert laptop["ifaces"][0]["router"] == "home"
    assert laptop["ifaces"][0]["addresses"] == ["10.0.0.2/16", "fd00::2/64"]
    assert laptop["ifaces"][0]["mtu"] == 1400
    assert state["regions"]["eu"]["upstream"] == "ix"


def test_a_line_has_its_number_time_and_kind_first() -> None:
    event = LabEvent(3, "2026-01-01T00:00:00.000000Z", "link_up", {"iface": "é"})
    assert event.to_line() == (
        '{"opid": 3, "timestamp": "2026-01-01T00:00:00.000000Z", "kind": "link_up", "iface": "é"}\n'
    )


def test_a_timestamp_is_utc_as_rfc_3339_writes_it() -> None:
    timestamp = EventLog().add("lab_created").timestamp
    assert len(timestamp) == len("2026-01-01T00:00:00.000000Z")
    assert timestamp.endswith("Z")


async def test_a_follower_sees_every_event_from_the_first_to_the_last() -> None:
    log, seen = EventLog(), []

    async def follow() -> None:
        async for event in log.follow():
            seen.append(event.kind)

    log.add("lab_created")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == ["lab_created"]
        log.add("link_up")
        log.add("link_down")
        await trio.testing.wait_all_tasks_blocked()
        assert seen == ["lab_created", "link_up", "link_down"]
        log.add("lab_stopped")
        log.close()
    assert seen == ["lab_created", "link_up", "link_down", "lab_stopped"]
