"""Rates, as iperf3 sees them; and the presets, row by row."""

from __future__ import annotations

import statistics

import pytest
import trio

import patchbay
from tests.links.measuring import Flow, binomial, open_links, ping, tcp_rate, udp_rate

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(("up", "down"), [(1, 10), (10, 50), (50, 10)])
async def test_each_direction_has_its_own_rate_for_tcp_and_udp(emulator: str, up: int, down: int) -> None:
    link = {"up": {"rate_kbit": up * 1000}, "down": {"rate_kbit": down * 1000}}
    async with open_links(emulator, {"d": link}) as lab:
        device, server = lab.device("d"), lab.device("server")
        found = {
            "TCP up": (up, await tcp_rate(device, server)),
            "TCP down": (down, await tcp_rate(device, server, "-R")),
            "UDP up": (up, await udp_rate(device, server, up * 1.25)),
            "UDP down": (down, await udp_rate(server, device, down * 1.25)),
        }
    wrong = {what: rates for what, rates in found.items() if rates[1] != pytest.approx(rates[0], rel=0.05)}
    assert not wrong


async def test_a_shared_downlink_is_shared_and_the_narrower_of_two_hops_counts(emulator: str) -> None:
    async with open_links(emulator, {"d": {"rate_kbit": 5_000}}) as lab:
        router, device, server = lab.router("r-d"), lab.device("d"), lab.device("server")
        other = await lab.add_device("other", uplink=router)
        await router.set_downlink_condition({"down": {"rate_kbit": 8_000}})
        alone = await udp_rate(server, device, 12)
        assert alone == pytest.approx(5, rel=0.05)
        rates: list[float] = []

        async def measure(node: patchbay.Node) -> None:
            rates.append(await udp_rate(server, node, 12))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(measure, device)
            nursery.start_soon(measure, other)
    assert sum(rates) == pytest.approx(8, rel=0.08)
    assert min(rates) > 1


async def test_the_buffer_behind_a_rate_is_as_long_as_asked_for(emulator: str) -> None:
    """What waits for its turn is late by the length of the buffer: 60 kB at 4 Mbit/s are 120 ms."""
    link = {"up": {"rate_kbit": 4_000, "buffer_kb": 60}}
    async with open_links(emulator, {"d": link}) as lab:
        device, server = lab.device("d"), lab.device("server")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(udp_rate, device, server, 8)
            seen: list[float] = []
            while len(seen) < 5:
                pings = await ping(device, server.ip, 20, 0.02, 0.5)
                seen += [ms for ms in pings.times if ms > 50]
            nursery.cancel_scope.cancel()
    assert 100 <= statistics.median(seen) <= 135


# Typed from the table of presets: latency, jitter, loss, rate in Mbit/s.
PRESETS = {
    "wifi": (5, 2, 0.1, None),
    "wifi-bad": (40, 15, 2, 20),
    "mobile-4g": (25, 8, 0.5, None),
    "mobile": (25, 8, 0.5, None),
    "mobile-3g": (100, 30, 2, 2),
    "satellite": (40, 7, 1, None),
    "satellite-geo": (300, 20, 0.5, 25),
}


async def test_each_preset_shows_its_row(emulator: str) -> None:
    async with open_links(emulator, {name: name for name in PRESETS}) as lab:
        server = lab.device("server")
        for name, (latency, jitter, loss, rate) in PRESETS.items():
            device = lab.device(name)
            pings = await ping(device, server.ip, 50, 0.01 + jitter / 1000)
            # The mean of 50 of which each has two uniform spreads; a little more, since order is kept.
            spread = jitter * (2 / 3) ** 0.5
            assert statistics.median(pings.times) == pytest.approx(2 * latency, abs=1.5 + spread), name
            assert statistics.stdev(pings.times) == pytest.approx(spread, rel=0.5, abs=0.5), name
            arrived = await Flow(server, device).send_many(1000, pause=0.01)
            least, most = binomial(1000, loss / 100)
            assert least <= 1000 - len(arrived) <= most, (name, len(arrived))
            if rate:
                found = await udp_rate(device, server, rate * 1.25)
                assert found == pytest.approx(rate, rel=0.05), name


async def test_a_lan_is_nothing_at_all(emulator: str) -> None:
    async with open_links(emulator, {"d": "lan"}) as lab:
        assert (await ping(lab.device("d"), lab.device("server").ip)).median < 2
        assert not lab.device("d").iface("eth0").link
