"""Every NAT there is, told by the classifier of itself: the whole of RFC 4787's grid, against theory."""

from __future__ import annotations

from itertools import product

import pytest
import trio

import patchbay
from patchbay.lab.lab import Lab
from patchbay.model.nat import Behavior, Nat, NatConfig
from patchbay.testing import StunServers, classify_nat, differences, predict, serve_stun

pytestmark = pytest.mark.kernel

ALLOCATIONS = ("preserve", "random", "sequential", "block:1008")
GRID = {
    f"{mapping.short}M {filtering.short}F {ports}": NatConfig(mapping, filtering, ports)
    for mapping, filtering, ports in product(Behavior, Behavior, ALLOCATIONS)
}
HAIRPIN = {
    f"{name} hairpin": NatConfig(nat.mapping, nat.filtering, nat.port_allocation, hairpin=True)
    for name, nat in GRID.items()
}
PRESETS: dict[str, Nat | NatConfig] = {str(preset): preset for preset in Nat}

# As many at once as two processors do well: the classifier measures round trips.
AT_ONCE = 12


async def build(lab: Lab, nats: dict[str, Nat | NatConfig]) -> dict[str, patchbay.Device]:
    """A router for each NAT and a device behind it, and the two servers."""
    async with lab.batch():
        dc = await lab.add_router("dc", preset="datacenter")
        devices = {name: await lab.add_device(name, uplink=dc) for name in ("first", "second")}
        for name, nat in nats.items():
            router = await lab.add_router(f"router {name}", nat=nat)
            devices[name] = await lab.add_device(name, uplink=router)
    return devices


async def check_all(
    servers: StunServers,
    nats: dict[str, Nat | NatConfig],
    devices: dict[str, patchbay.Device],
    protocol: str,
) -> dict[str, list[str]]:
    """What was not as predicted, of each NAT."""
    wrong: dict[str, list[str]] = {}
    limit = trio.CapacityLimiter(AT_ONCE)

    async def check(name: str) -> None:
        async with limit:
            report = await classify_nat(devices[name], servers, protocol=protocol)
        if found := differences(predict(nats[name], protocol), report):
            wrong[name] = [*found, *report.notes]

    async with trio.open_nursery() as nursery:
        for name in nats:
            nursery.start_soon(check, name)
    return wrong


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize("nats", [GRID, HAIRPIN, PRESETS], ids=["grid", "grid with hairpin", "presets"])
async def test_every_nat_behaves_as_configured(nats: dict[str, Nat | NatConfig], protocol: str) -> None:
    async with patchbay.open_lab() as lab:
        devices = await build(lab, nats)
        async with serve_stun(devices["first"], devices["second"]) as servers:
            assert await check_all(servers, nats, devices, protocol) == {}
