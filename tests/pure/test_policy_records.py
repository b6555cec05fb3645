"""What is kept of NATs and firewalls: events that add up to the state, a journal that replays what stands."""

import pytest
from hypothesis import strategies as st

from patchbay.change.base import Change, Event
from patchbay.layout.layout import Layout
from patchbay.model.nat import NatConfig, read_nat
from patchbay.record.state import snapshot
from tests.pure.policies import (
    ALL_PORTS,
    LAB,
    after,
    device,
    firewall,
    flush,
    nat,
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
def test_a_lack_is_reported(case: str) -> None:
    change, expected = EVENTS[case]
    assert events(change) == expected


def test_blocks_that_hosts_get_are_no_event_of_their_router() -> None:
    assert [kind for kind, _ in events(device("four"), after(LAB, nat(ALL_PORTS)))] == ["device_added"]


def test_the_state_names_presets_and_has_the_fields_of_anything_else() -> None:
    state = snapshot(after(LAB, firewall(WALL), nat(CUSTOM)))["routers"]
    assert (state["r"]["nat"], state["r"]["firewall"]) == (CUSTOM, WALL)
    assert (state["below"]["nat"], state["below"]["firewall"]) == ("home", "none")
    # What a lab file may say, too.
    assert after(LAB, nat(state["r"]["nat"])).policies[NS].nat == read_nat(CUSTOM)
