"""In a lab of 1000 devices a live change costs what it costs in a small one: it looks at what it changes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from inspect import CO_GENERATOR
from ipaddress import ip_address
from types import FrameType
from typing import Any

import pytest

from patchbay.change import (
    Add,
    AddName,
    BreakRegionLink,
    Change,
    FlushNat,
    LinkRegions,
    RemoveDevice,
    RemoveRouter,
    RestoreRegionLink,
    SetDownlinkCondition,
    SetFirewall,
    SetLinkCondition,
    SetNameserver,
    SetNat,
)
from patchbay.change.links import UseEmulator
from patchbay.config.draft import Draft
from patchbay.layout.allocate import lay_out
from patchbay.layout.layout import Layout
from patchbay.model.firewall import Firewall
from patchbay.model.lab import (
    DeviceSpec,
    IfaceSpec,
    LabSpec,
    RegionLinkSpec,
    RegionSpec,
    RouterPreset,
    RouterSpec,
)
from patchbay.model.link import Emulator, LinkCondition, RegionLink
from patchbay.model.nat import Nat
from patchbay.plan.change import between
from patchbay.tools.commands import Command
from tests.pure.goldens import assert_golden

WIFI = LinkCondition(latency_ms=20, jitter_ms=5)
SLOW = LinkCondition(latency_ms=200)


@cache
def lab(devices: int) -> Layout:
    """A tenth as many routers as devices, some in two regions, and a condition on every link."""
    routers = [RouterSpec(f"r{n}", preset=RouterPreset.HOME) for n in range(devices // 10)]
    regions = [RouterSpec(f"far{n}", region=name) for n, name in enumerate(("us", "eu"))]
    spec = LabSpec(
        regions=(RegionSpec("us"), RegionSpec("eu")),
        region_links=(RegionLinkSpec("us", "eu", RegionLink.good(40)),),
        routers=(*routers, *regions, RouterSpec("empty", preset=RouterPreset.HOME)),
        devices=tuple(
            DeviceSpec(f"d{n}", {"eth0": IfaceSpec(f"r{n % len(routers)}", WIFI)}) for n in range(devices)
        ),
    )
    layout = lay_out(Draft(spec))
    return UseEmulator(Emulator.USERSPACE).apply(layout)


CHANGES: dict[str, Change] = {
    "a device": Add(LabSpec(devices=(DeviceSpec("new", {"eth0": IfaceSpec("r1", WIFI)}),))),
    "a router": Add(LabSpec(routers=(RouterSpec("new", preset=RouterPreset.HOME),))),
    "no device": RemoveDevice("d1"),
    "no router": RemoveRouter("empty"),
    "a condition": SetLinkCondition("d1", "eth0", SLOW),
    "no condition": SetLinkCondition("d1", "eth0"),
    "a downlink": SetDownlinkCondition("r1", SLOW),
    "a region link": LinkRegions("us", "eu", SLOW),
    "a broken link": BreakRegionLink("us", "eu"),
    "a restored link": RestoreRegionLink("us", "eu"),
    "a NAT": SetNat("r1", Nat.CORPORATE),
    "a flush": FlushNat("r1"),
    "a firewall": SetFirewall("r1", Firewall.CORPORATE),
    "a name": AddName("new.test", (ip_address("192.0.2.1"),)),
    "a name of a device": AddName("new.test", (ip_address("192.0.2.1"),), "d1"),
    "a name server": SetNameserver(ip_address("192.0.2.1"), "d1"),
}


def before(name: str, devices: int) -> Layout:
    layout = lab(devices)
    return BreakRegionLink("us", "eu").apply(layout) if name == "a restored link" else layout


def planned(old: Layout, new: Layout) -> list[Command]:
    return list(between(old, new))


def calls_of(plan: Callable[[], Any]) -> Counter[str]:
    """Count the calls of Python's functions while something is planned.

    The steps of generators do not count: to go through all nodes for those that have changed is 0.1 ms.
    """
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _arg: object) -> None:
        if event == "call" and not frame.f_code.co_flags & CO_GENERATOR:
            calls[frame.f_code.co_qualname] += 1

    sys.setprofile(note)
    try:
        plan()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("name", CHANGES)
def test_planning_one_change_looks_at_what_it_changes(name: str) -> None:
    change = CHANGES[name]
    found: dict[int, Counter[str]] = {}
    for size in (300, 1000):
        old = before(name, size)
        new = change.apply(old)
        found[size] = calls_of(partial(planned, old, new))
    more = found[1000] - found[300]
    # 700 devices and 70 routers more.
    assert more.total() < 200, more.most_common(5)


@pytest.mark.parametrize("name", CHANGES)
def test_one_change_is_a_handful_of_commands(name: str) -> None:
    old = before(name, 1000)
    plan = between(old, CHANGES[name].apply(old))
    text = "".join(f"{command.ns or '-'}: {' '.join(command.argv)}\n" for command in plan)
    assert_golden(f"change-of-1000/{name.replace(' ', '-')}.txt", text)
