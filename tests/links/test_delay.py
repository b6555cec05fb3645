"""Latency and jitter, as ping sees them."""

from __future__ import annotations

import statistics

import pytest
import trio

import patchbay
from tests.links.measuring import open_links, ping

pytestmark = pytest.mark.kernel

ONE_WAY = (5, 25, 100, 300)


def near(rtt: float, wanted: float) -> bool:
    return wanted - 0.05 <= rtt <= wanted * 1.02 + 1


@pytest.mark.parametrize("version", [4, 6])
async def test_the_round_trip_is_the_delay_of_both_directions(emulator: str, version: int) -> None:
    links = {f"d{ms}": {"latency_ms": ms} for ms in ONE_WAY}
    async with open_links(emulator, links) as lab:
        server = lab.device("server")
        target = server.ip if version == 4 else server.ip6
        found = {ms: await ping(lab.device(f"d{ms}"), target, 11) for ms in ONE_WAY}
    assert all(len(pings.times) == 11 for pings in found.values())
    assert all(near(pings.median, 2 * ms) for ms, pings in found.items()), found


async def test_each_direction_has_its_own_delay(emulator: str) -> None:
    links = {
        "a": {"up": {"latency_ms": 40}},
        "b": {"down": {"latency_ms": 60}},
        "c": {"latency_ms": 10, "up": {"latency_ms": 30}},
    }
    async with open_links(emulator, links) as lab:
        server = lab.device("server").ip
        for name, wanted in {"a": 40, "b": 60, "c": 40}.items():
            pings = await ping(lab.device(name), server, 5)
            assert near(pings.median, wanted), name
            # Nobody had to be asked for an address, over the delay, before the first.
            assert pings.times[0] <= wanted * 1.5, name


async def test_jitter_spreads_evenly_and_keeps_the_order(emulator: str) -> None:
    async with open_links(emulator, {"d": {"latency_ms": 50, "jitter_ms": 10}}) as lab:
        # Further apart than jitter moves them, so that keeping the order changes no delay.
        pings = await ping(lab.device("d"), lab.device("server").ip, 150, 0.025)
    assert pings.order == sorted(pings.order)
    assert len(pings.times) == 150
    assert min(pings.times) >= 79.9
    # All but what a busy machine may hold up.
    assert statistics.quantiles(pings.times, n=20)[-1] <= 120 * 1.02 + 1
    # Two uniform spreads of ±10: a standard deviation of 10 * sqrt(2 / 3), give or take that of 150.
    assert statistics.stdev(pings.times) == pytest.approx(8.16, rel=0.25)
    assert statistics.mean(pings.times) == pytest.approx(100, abs=3)


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
        assert near((await ping(device, server.ip, 7)).median, 70)
        await device.set_link_condition("eth0", None)
        assert near((await ping(device, server.ip, 7)).median, 50)


async def test_the_latency_of_regions_adds_to_that_of_links(emulator: str) -> None:
    spec = {
        "region": {"us": {"latencies": {"eu": 40}}, "eu": {}, "asia": {}},
        "region-link": [{"a": "asia", "b": "us", "latency_ms": 70, "up": {"latency_ms": 80}}],
        "router": [{"name": n, "preset": "datacenter", "region": n} for n in ("us", "eu", "asia")],
        "device": {
            "america": {"eth0": {"gateway": "us", "link": {"latency_ms": 10}}},
            "europe": {"eth0": {"gateway": "eu"}},
            "japan": {"eth0": {"gateway": "asia"}},
        },
    }
    with trio.fail_after(60):
        async with patchbay.open_lab(spec, emulator=emulator) as lab:
            america, europe, japan = map(lab.device, ("america", "europe", "japan"))
            assert near((await ping(america, europe.ip, 5)).median, 100)
            assert near((await ping(europe, america.ip6, 5)).median, 100)
            assert near((await ping(japan, america.ip, 5)).median, 170)
            # These two are not linked: they meet on the exchange.
            assert (await ping(japan, europe.ip, 5)).median < 5
