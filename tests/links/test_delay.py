"""Latency and jitter, by ping and by the kernel's own times."""

from __future__ import annotations

import pytest
import trio

import patchbay
from tests.judging import Best, satisfy
from tests.links.measuring import (
    BESIDE,
    OPPOSITE,
    expect_one_way,
    expect_round_trip,
    expect_spread,
    open_links,
    ping,
)

pytestmark = [pytest.mark.kernel, pytest.mark.measures]

ONE_WAY = (5, 25, 100, 300)


@pytest.mark.parametrize("version", [4, 6])
async def test_the_round_trip_is_the_delay_of_both_directions(emulator: str, version: int) -> None:
    links = {f"d{ms}": {"latency_ms": ms} for ms in ONE_WAY}
    async with open_links(emulator, links) as lab, trio.open_nursery() as nursery:
        server = lab.device("server")
        target = server.ip if version == 4 else server.ip6
        for ms in ONE_WAY:
            nursery.start_soon(expect_round_trip, lab.device(f"d{ms}"), target, 2 * ms)


async def test_each_direction_has_its_own_delay(emulator: str) -> None:
    """One way, so that swapped directions show."""
    links = {
        "a": {"up": {"latency_ms": 40}},
        "b": {"down": {"latency_ms": 60}},
        "c": {"latency_ms": 10, "up": {"latency_ms": 30}},
    }
    async with open_links(emulator, links) as lab, trio.open_nursery() as nursery:
        server = lab.device("server")
        for name, up, down in (("a", 40, 0), ("b", 0, 60), ("c", 30, 10)):
            device = lab.device(name)
            nursery.start_soon(expect_one_way, device, server, up)
            nursery.start_soon(expect_one_way, server, device, down)
            nursery.start_soon(expect_round_trip, device, server.ip, up + down)


async def test_nobody_is_asked_for_an_address_over_the_delay(emulator: str) -> None:
    """The first packet of a link that nobody has used takes no round trip more."""
    judge = Best(floor=400, ceiling=600, unit="ms")
    links = {f"d{number}": {"latency_ms": 200} for number in range(4)}

    async def sample() -> None:
        async with open_links(emulator, links) as lab:

            async def first(name: str) -> None:
                judge.values += (await ping(lab.device(name), lab.device("server").ip, 1)).times

            async with trio.open_nursery() as nursery:
                for name in links:
                    nursery.start_soon(first, name)

    await satisfy(judge, sample)


async def test_jitter_spreads_evenly_in_each_direction(emulator: str) -> None:
    links = {"d": {"latency_ms": 50, "jitter_ms": 10}, "steady": {"latency_ms": 50}}
    async with open_links(emulator, links) as lab, trio.open_nursery() as nursery:
        device, steady, server = map(lab.device, ("d", "steady", "server"))
        nursery.start_soon(expect_spread, (device, server), (steady, server), 40, 60)
        nursery.start_soon(expect_spread, (server, device), (server, steady), 40, 60)


async def test_jitter_does_not_reorder_what_is_close_together(emulator: str) -> None:
    async with open_links(emulator, {"d": {"latency_ms": 20, "jitter_ms": 20}}) as lab:
        pings = await ping(lab.device("d"), lab.device("server").ip, 100, 0.003)
    assert pings.order == sorted(pings.order)
    assert len(pings.times) == 100


async def test_two_conditions_in_a_row_add_up(emulator: str) -> None:
    async with open_links(emulator, {"d": {"latency_ms": 10}}) as lab:
        device, server = lab.device("d"), lab.device("server")
        await lab.router("r-d").set_downlink_condition({"latency_ms": 20})
        await server.set_link_condition("eth0", {"latency_ms": 5})
        await expect_round_trip(device, server.ip, 70)
        await device.set_link_condition("eth0", None)
        await expect_round_trip(device, server.ip, 50)


async def test_the_latency_of_regions_adds_to_that_of_links(emulator: str) -> None:
    spec = {
        "region": {"us": {"latencies": {"eu": 40}}, "eu": {}, "asia": {}},
        "region-link": [{"a": "asia", "b": "us", "latency_ms": 70, "up": {"latency_ms": 80}}],
        "router": [{"name": n, "preset": "datacenter", "region": n} for n in ("us", "eu", "asia")],
        "device": {
            "america": {"eth0": {"gateway": "us", "link": {"latency_ms": 10}}},
            "europe": {"eth0": {"gateway": "eu"}},
            "japan": {"eth0": {"gateway": "asia"}},
            **{name: {"eth0": {"gateway": "eu"}} for name in (BESIDE, OPPOSITE)},
        },
    }
    async with patchbay.open_lab(spec, emulator=emulator) as lab, trio.open_nursery() as nursery:
        america, europe, japan = map(lab.device, ("america", "europe", "japan"))
        for source, target, asked in (
            (america, europe.ip, 100),
            (europe, america.ip6, 100),
            (japan, america.ip, 170),
            # These two are not linked: they meet on the exchange.
            (japan, europe.ip, 0),
        ):
            nursery.start_soon(expect_round_trip, source, target, asked)
