"""Rates by TCP and UDP, buffers, and the presets, row by row."""

from __future__ import annotations

import pytest
import trio

import patchbay
from tests.judging import Best, satisfy
from tests.links.measuring import (
    Flow,
    expect_lost,
    expect_one_way,
    expect_spread,
    open_links,
)
from tests.links.rates import Arrived, expect_rate, scale, tcp, udp
from tests.patience import DEADLINE

pytestmark = [pytest.mark.kernel, pytest.mark.measures]


@pytest.mark.parametrize(("up", "down"), [(1, 10), (10, 50), (50, 10)])  # Mbit/s
async def test_each_direction_has_its_own_rate_for_tcp_and_udp(emulator: str, up: float, down: float) -> None:
    share = await scale(emulator, up, down)
    up, down = up * share, down * share
    link = {"up": {"rate_kbit": up * 1000}, "down": {"rate_kbit": down * 1000}}
    async with open_links(emulator, {"d": link}) as lab:
        device, server = lab.device("d"), lab.device("server")
        async with trio.open_nursery() as both:
            both.start_soon(expect_rate, udp, device, server, up)
            both.start_soon(expect_rate, udp, server, device, down)
        # One after the other, for the answers of TCP take some of the other direction's rate.
        await expect_rate(tcp, device, server, up)
        await expect_rate(tcp, server, device, down)


async def test_a_shared_downlink_is_shared_and_the_narrower_of_two_hops_counts(emulator: str) -> None:
    share = await scale(emulator, 12, 12)
    narrow, shared = 5 * share, 8 * share
    async with open_links(emulator, {"d": {"rate_kbit": narrow * 1000}}) as lab:
        router, device, server = lab.router("r-d"), lab.device("d"), lab.device("server")
        other = await lab.add_device("other", uplink=router)
        await router.set_downlink_condition({"down": {"rate_kbit": shared * 1000}})
        await expect_rate(udp, server, device, narrow)
        totals = {device.name: 0, other.name: 0}

        async def both(source: patchbay.Node, _: patchbay.Node, offered: float, arrived: Arrived) -> None:
            """Send to the two at once; what counts is what both of them get."""
            totals.update(dict.fromkeys(totals, 0))

            async def one(target: patchbay.Node) -> None:
                def note(seconds: float, total: int) -> None:
                    totals[target.name] = total
                    arrived(seconds, sum(totals.values()))

                await udp(source, target, offered, note)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(one, device)
                nursery.start_soon(one, other)

        await expect_rate(both, server, device, shared)
        assert min(totals.values()) > sum(totals.values()) / 8


async def test_the_buffer_behind_a_rate_is_as_long_as_asked_for(emulator: str) -> None:
    """Of 120 kB at once, the buffer's 60 kB and the bucket's 3 kB pass; of a slow sender's more do."""
    frame = 1000 + 8 + 20 + 14
    judge = Best(floor=60_000 - frame, ceiling=63_000 + 8 * frame, unit="bytes")
    async with open_links(emulator, {"d": {"up": {"rate_kbit": 4_000, "buffer_kb": 60}}}) as lab:
        device, server = lab.device("d"), lab.device("server")

        async def sample() -> None:
            flow = Flow(device, server)
            for start in range(0, 120, 40):
                flow.send_as_one(range(start, start + 40))
            judge.values.append(frame * len(await flow.send_many(0)))

        await satisfy(judge, sample)


async def test_what_waits_in_a_buffer_is_late_by_its_length(emulator: str) -> None:
    """The last of 58 kB at 4 Mbit/s arrives after 117 ms, less the 6 ms that the bucket holds."""
    judge, count = Best(floor=108, ceiling=121, unit="ms"), 56
    async with open_links(emulator, {"d": {"up": {"rate_kbit": 4_000, "buffer_kb": 60}}}) as lab:

        async def sample() -> None:
            flow, began = Flow(lab.device("d"), lab.device("server")), trio.current_time()
            for start in range(0, count, 28):
                flow.send_as_one(range(start, start + 28))
            with trio.fail_after(DEADLINE):
                while len(flow.arrived) < count:
                    await flow.hear()
            judge.values.append((trio.current_time() - began) * 1000)

        await satisfy(judge, sample)


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


async def test_each_preset_delays_and_loses_as_its_row_says(emulator: str) -> None:
    links = {**{name: name for name in PRESETS}, "steady": {"latency_ms": 20}}
    async with open_links(emulator, links) as lab, trio.open_nursery() as nursery:
        server, steady = lab.device("server"), lab.device("steady")

        async def check(name: str, up: bool) -> None:
            latency, jitter, loss, _ = PRESETS[name]
            ends, beside = [(node, server) if up else (server, node) for node in (lab.device(name), steady)]
            await expect_spread(ends, beside, latency - jitter, latency + jitter, 100)
            # As many as it takes to see that some are lost, but for one in 1000. At most 100 are under way at
            # a time, which any receiver holds.
            sent = min(5000, round(25 / (loss / 100)))
            await expect_lost(*ends, sent, loss / 100, pause=max(10, latency / 10) / 1000)

        for name in PRESETS:
            nursery.start_soon(check, name, True)
            nursery.start_soon(check, name, False)


async def test_each_preset_has_the_rate_of_its_row(emulator: str) -> None:
    """A rate is not scaled here: where it is too much for the machine, it is only seen not to be exceeded."""
    limited = {name: row for name, row in PRESETS.items() if row[3]}
    async with open_links(emulator, {name: name for name in limited}) as lab:
        server = lab.device("server")
        for name, (latency, jitter, _, rate) in limited.items():
            assert rate
            delay = ((latency - jitter) / 1000, (latency + jitter) / 1000)
            keeps_up = await scale(emulator, rate) == 1
            for ends in ((lab.device(name), server), (server, lab.device(name))):
                await expect_rate(udp, *ends, rate, delay, at_least=keeps_up)


async def test_a_lan_is_nothing_at_all(emulator: str) -> None:
    async with open_links(emulator, {"d": "lan"}) as lab:
        assert not lab.device("d").iface("eth0").link
        await expect_one_way(lab.device("d"), lab.device("server"), 0)
