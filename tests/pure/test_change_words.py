"""What each change says of itself, and what it tells when it is applied again."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from patchbay.change.base import Change
from patchbay.change.codec import CHANGES
from patchbay.change.links import (
    BreakRegionLink,
    LinkRegions,
    LoseLink,
    RestoreRegionLink,
    SetDownlinkCondition,
    SetLinkCondition,
    UseEmulator,
)
from patchbay.change.names import AddName, RemoveName, SetNameserver
from patchbay.change.nodes import Add, RemoveDevice, RemoveRouter
from patchbay.change.policies import FlushNat, SetFirewall, SetNat
from patchbay.layout.layout import Layout
from patchbay.model.firewall import Firewall
from patchbay.model.lab import DeviceSpec, LabSpec
from patchbay.model.link import Direction, Emulator, LinkCondition
from patchbay.model.nat import Nat, NatConfig
from tests.pure.labs import HOME_AND_REGIONS

SLOW = LinkCondition(latency_ms=40)
EU_US = ("regions", "eu", "us")

WORDS: dict[str, tuple[Change, str]] = {
    "add": (Add(LabSpec(devices=(DeviceSpec("phone"),))), "add device 'phone'"),
    "remove-device": (RemoveDevice("laptop"), "remove device 'laptop'"),
    "remove-router": (RemoveRouter("home"), "remove router 'home'"),
    "set-link-condition": (
        SetLinkCondition("laptop", "eth0", SLOW, Direction.UP),
        "set the link of device 'laptop' on eth0 to latency_ms=40, up only",
    ),
    "set-downlink-condition": (
        SetDownlinkCondition("home"),
        "clear the downlink of router 'home'",
    ),
    "link-regions": (LinkRegions("eu", "us", SLOW), "link regions 'eu' and 'us'"),
    "break-region-link": (BreakRegionLink("eu", "us"), "break the link of regions 'eu' and 'us'"),
    "restore-region-link": (RestoreRegionLink("eu", "us"), "restore the link of regions 'eu' and 'us'"),
    "lose-link": (LoseLink(EU_US), "cut the link eu us, whose relay has ended"),
    "use-emulator": (UseEmulator(Emulator.NETEM), "let 'netem' put links into their conditions"),
    "add-name": (
        AddName("x", (ip_address("192.0.2.1"), ip_address("2001:db8::1"))),
        "give the name 'x' 192.0.2.1, 2001:db8::1 in every node",
    ),
    "remove-name": (RemoveName("x", node="laptop"), "take from the name 'x' its addresses in 'laptop'"),
    "set-nameserver": (
        SetNameserver(ip_address("192.0.2.1"), "laptop"),
        "ask the name server 192.0.2.1 in 'laptop'",
    ),
    "set-nat": (SetNat("home", Nat.CGNAT), "set the NAT of router 'home' to 'cgnat'"),
    "flush-nat": (FlushNat("home"), "flush the NAT of router 'home'"),
    "set-firewall": (SetFirewall("home", Firewall.NONE), "set the firewall of router 'home' to 'none'"),
}


@pytest.mark.parametrize("action", WORDS)
def test_the_words_of(action: str) -> None:
    change, words = WORDS[action]
    assert change.action == action
    assert change.describe() == words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Add(LabSpec()), "add nothing"),
        (SetLinkCondition("laptop", "eth0"), "clear the link of device 'laptop' on eth0"),
        (
            SetLinkCondition("laptop", "eth0", LinkCondition(latency_ms=20, loss_pct=1), Direction.UP),
            "set the link of device 'laptop' on eth0 to latency_ms=20, loss_pct=1, up only",
        ),
        (
            SetDownlinkCondition("home", LinkCondition(rate_kbit=1000)),
            "set the downlink of router 'home' to rate_kbit=1000",
        ),
        (
            SetNat("home", NatConfig(hairpin=True)),
            "set the NAT of router 'home' to one of its own kind",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_words_for(change: Change, words: str) -> None:
    assert change.describe() == words


def test_every_change_that_a_file_can_have_is_described() -> None:
    assert set(CHANGES) <= set(WORDS)


def kinds(change: Change, old: Layout, new: Layout) -> list[str]:
    return [kind for kind, _ in change.events(old, new)]


def test_a_link_of_regions_tells_once_that_it_is_broken_restored_and_lost() -> None:
    broken = BreakRegionLink("eu", "us").apply(HOME_AND_REGIONS)
    assert kinds(BreakRegionLink("eu", "us"), HOME_AND_REGIONS, broken) == ["region_link_broken"]
    assert kinds(BreakRegionLink("eu", "us"), broken, broken) == []
    assert kinds(RestoreRegionLink("eu", "us"), broken, HOME_AND_REGIONS) == ["region_link_restored"]
    assert kinds(RestoreRegionLink("eu", "us"), HOME_AND_REGIONS, HOME_AND_REGIONS) == []
    lost = LoseLink(EU_US).apply(HOME_AND_REGIONS)
    assert kinds(LoseLink(EU_US), HOME_AND_REGIONS, lost) == ["region_link_broken"]
    assert kinds(LoseLink(EU_US), broken, lost) == []
    assert kinds(LinkRegions("eu", "us", SLOW), broken, HOME_AND_REGIONS) == ["region_link_restored"]


def test_the_choice_of_an_emulator_is_no_event() -> None:
    assert kinds(UseEmulator(Emulator.USERSPACE), HOME_AND_REGIONS, HOME_AND_REGIONS) == []
