"""Changing links under traffic, cutting and mending them, and what all of it leaves behind."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import patchbay
from patchbay.lab.lab import Lab
from tests.judging import All, Best, satisfy
from tests.links.measuring import BESIDE, OPPOSITE, Flow, Pings, expect_round_trip, open_links, ping
from tests.patience import DEADLINE, await_until

pytestmark = pytest.mark.kernel

STEPS: list[Any] = [
    {"latency_ms": 20},
    {"rate_kbit": 10_000, "loss_pct": 1},
    "wifi",
    None,
    {"up": {"latency_ms": 5, "reorder_pct": 2}, "down": {"rate_kbit": 5_000}},
    "satellite-geo",
    "lan",
    {"jitter_ms": 1, "latency_ms": 3, "duplicate_pct": 1, "corrupt_pct": 0.5},
    None,
    None,
]


@pytest.mark.measures
async def test_a_change_acts_on_the_next_packet(emulator: str) -> None:
    """The first ping after each change takes the new time."""
    latencies = (50, 5, 150, 0, 30)
    judges = [Best(2 * ms - 0.05, 2 * ms + 8, "ms") for ms in latencies]
    async with open_links(emulator, {"d": {"latency_ms": 10}}) as lab:
        device, server = lab.device("d"), lab.device("server").ip

        async def sample() -> None:
            for ms, judge in zip(latencies, judges, strict=True):
                await device.set_link_condition("eth0", {"latency_ms": ms})
                first = await ping(device, server, 1, wait=DEADLINE)
                assert first.times, ms
                judge.values += first.times

        await satisfy(All(judges), sample)


@pytest.mark.measures
async def test_a_change_of_one_value_leaves_the_others(emulator: str) -> None:
    async with open_links(emulator, {"d": {"latency_ms": 30}}) as lab:
        device, server = lab.device("d"), lab.device("server")
        await device.set_link_condition("eth0", {"latency_ms": 60}, direction="up")
        await expect_round_trip(device, server.ip, 90)
        await device.set_link_condition("eth0", {"loss_pct": 100}, direction="down")
        assert not (await ping(device, server.ip, 3, 0.05, 0.3)).times
        # Up it goes as before.
        assert len(await Flow(device, server).send_many(50)) == 50
        await device.set_link_condition("eth0", {"loss_pct": 0})
        await expect_round_trip(device, server.ip, 90)
        link = device.iface("eth0").link
        assert (link.up.latency_ms, link.down.latency_ms, link.down.loss_pct) == (60, 30, None)


@asynccontextmanager
async def echoing(client: patchbay.Node, server: patchbay.Node) -> AsyncIterator[trio.SocketStream]:
    """A TCP connection to an echo server."""

    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def serve(task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        await trio.serve_tcp(echo, 7, task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(server.task, serve)
        with client.enter():
            stream = await trio.open_tcp_stream(str(server.ip), 7)
        yield stream
        nursery.cancel_scope.cancel()


@pytest.mark.ordinary
async def test_a_connection_outlives_every_change_of_its_way(emulator: str) -> None:
    async with open_links(emulator, {"d": None}) as lab:
        device, router = lab.device("d"), lab.router("r-d")
        async with echoing(device, lab.device("server")) as stream:
            for number, condition in enumerate(STEPS):
                await device.set_link_condition("eth0", condition)
                if number % 3 == 0:
                    await router.set_downlink_condition(condition)
                message = f"after {condition!r}".encode()
                await stream.send_all(message)
                answer = b""
                while len(answer) < len(message):
                    answer += await stream.receive_some()
                assert answer == message


# What a lab is made of, without what only counts or numbers.
LOOK = (
    "ip -j -d link", "ip -j address", "ip -j route", "ip -6 -j route", "ip -j neigh show nud permanent",
    "tc -j qdisc",
)  # fmt: skip
VOLATILE = {
    "ifindex",
    "link_index",
    "valid_life_time",
    "preferred_life_time",
    "root_port",
    # The number of a bridge's port: a free one.
    "designated_port",
    "id",
    "no",
    "handle",
    "refcnt",
}


def cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: cleaned(v) for k, v in value.items() if k not in VOLATILE and not k.endswith("_timer")}
    if isinstance(value, list):
        return sorted((cleaned(v) for v in value), key=lambda v: json.dumps(v, sort_keys=True))
    return value


async def whole_state(lab: Lab) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for node in (lab.ix, *lab.routers, *lab.devices):
        for command in LOOK:
            said = await node.run(command.split(), capture_stdout=True)
            state[f"{node.name}: {command}"] = cleaned(json.loads(said.stdout or "[]"))
    processes = await lab.ix.run(["ps", "-e", "-o", "comm="], capture_stdout=True)
    state["relays"] = processes.stdout.count(b"relay")
    return state


async def test_a_hundred_changes_in_a_row_leave_nothing_behind(emulator: str) -> None:
    async with open_links(emulator, {"d": None}) as lab:
        device, router = lab.device("d"), lab.router("r-d")
        before, commands = await whole_state(lab), lab.trace()
        for number in range(100):
            await device.set_link_condition("eth0", STEPS[number % len(STEPS)])
            if number % 10 == 5:
                await router.set_downlink_condition({"latency_ms": number})
        await device.set_link_condition("eth0", None)
        await router.set_downlink_condition(None)
        await until_equal(lab, before)
        # By hand, too, there is nothing to be done again but to say once more what is so already.
        again = set(lab.trace().splitlines()) - set(commands.splitlines())
        assert not [line for line in again if "tc " in line or "relay" in line or "link add" in line]


async def until_equal(lab: Lab, wanted: dict[str, Any]) -> None:
    """Carriers of bridges take a moment to be what they will be."""
    found: dict[str, Any] = {}

    async def equal() -> bool:
        found.update(await whole_state(lab))
        return found == wanted

    with contextlib.suppress(AssertionError):
        await await_until(equal)
    assert {key: (found[key], wanted[key]) for key in wanted if found[key] != wanted[key]} == {}


async def test_a_bad_change_changes_nothing(emulator: str) -> None:
    async with open_links(emulator, {"d": {"latency_ms": 10}}) as lab:
        device = lab.device("d")
        before, commands = await whole_state(lab), len(lab.commands)
        for bad in (
            {"loss_pct": 101},
            {"jitter_ms": 11},
            {"latency_ms": -1},
            "wify",
            {"latency": 3},
            {"rate_kbit": 1},
        ):
            with pytest.raises(patchbay.SpecError):
                await device.set_link_condition("eth0", bad)
        with pytest.raises(patchbay.SpecError, match="accepted: 'up', 'down', 'both'"):
            await device.set_link_condition("eth0", "wifi", direction="sideways")
        with pytest.raises(KeyError, match="eth0"):
            await device.set_link_condition("eth1", "wifi")
        assert len(lab.commands) == commands
        assert await whole_state(lab) == before


@pytest.mark.measures
async def test_links_carry_what_their_ends_do(emulator: str) -> None:
    async with open_links(emulator, {"d": None}) as lab:
        link = {"latency_ms": 5, "rate_kbit": 20_000}
        near, far = [await lab.add_device(f"jumbo{n}", uplink="r-d", mtu=9000, link=link) for n in range(2)]

        async def expect(judge: Best, *options: str) -> None:
            async def sample() -> None:
                argv = ["ping", "-n", "-c3", "-i.1", *options, str(far.ip)]
                done = await near.run(argv, capture_stdout=True)
                judge.values += Pings(done.stdout.decode(), 3).times

            await satisfy(judge, sample, options)

        # Two links each way; and the frame of 8.9 kB passes each at once, as the bucket holds two.
        await expect(Best(20 - 0.05, 28, "ms"), "-M", "do", "-s", "8900")
        # A datagram of 60 kB is seven frames, of which two pass at once: all of them fit.
        await expect(Best(40, 80, "ms"), "-s", "60000")


# -- between regions


@asynccontextmanager
async def two_regions(
    emulator: str, ms: float
) -> AsyncIterator[tuple[Lab, patchbay.Device, patchbay.Device]]:
    """Two linked regions with a device each, and two devices on one LAN for control."""
    async with patchbay.open_lab(emulator=emulator) as lab:
        async with lab.batch():
            for name in ("us", "eu"):
                region = await lab.add_region(name)
                router = await lab.add_router(f"r-{name}", region=region, preset="datacenter")
                await lab.add_device(f"d-{name}", uplink=router)
            for name in (BESIDE, OPPOSITE):
                await lab.add_device(name, uplink="r-us")
        await lab.link_regions("us", "eu", ms)
        yield lab, lab.device("d-us"), lab.device("d-eu")


@pytest.mark.parametrize("back", [False, True])
async def test_breaking_a_region_link_drops_what_is_under_way(emulator: str, back: bool) -> None:
    latency = 0.5
    async with two_regions(emulator, latency * 1000) as (lab, us, eu):
        flow = Flow(eu, us) if back else Flow(us, eu)
        assert await flow.send_many(5) == [0, 1, 2, 3, 4]
        give_up = trio.current_time() + DEADLINE
        while True:
            sent = trio.current_time()
            for number in range(100, 110):
                flow.send(number)
            await lab.break_region_link("us", "eu")
            under_way = trio.current_time() - sent < latency
            for number in range(200, 210):
                flow.send(number)
            await lab.restore_region_link("eu", "us")
            flow.arrived.clear()  # what the machine was too slow to catch
            found = await flow.send_many(5)
            if under_way:
                break
            assert trio.current_time() < give_up, "the link was never broken before the packets had arrived"
        assert found == [0, 1, 2, 3, 4]


@pytest.mark.measures
async def test_restoring_a_region_link_brings_traffic_back_at_once(emulator: str) -> None:
    """The first packet after it is answered, within a round trip and 100 ms, and what starting ping takes."""
    async with two_regions(emulator, 50) as (lab, us, eu):
        for target in (eu.ip, eu.ip6):
            judge = Best(100, 100 + 100 + 100, "ms")

            async def sample(target: object = target, judge: Best = judge) -> None:
                await lab.break_region_link("us", "eu")
                await lab.restore_region_link("us", "eu")
                restored = trio.current_time()
                assert (await ping(us, target, 1, wait=DEADLINE)).times, "the first packet was lost"
                judge.values.append((trio.current_time() - restored) * 1000)

            await satisfy(judge, sample, target)


@pytest.mark.measures
async def test_a_router_that_joins_a_region_later_is_reached_over_its_links(emulator: str) -> None:
    async with two_regions(emulator, 40) as (lab, us, _):
        router = await lab.add_router("r", region="eu", preset="datacenter")
        late = await lab.add_device("late", uplink=router)
        for target in (late.ip, late.ip6):
            await expect_round_trip(us, target, 80)
        await lab.link_regions("eu", "us", {"down": {"latency_ms": 10}})
        await expect_round_trip(us, late.ip, 50)
        await lab.link_regions("us", "eu", patchbay.RegionLink.degraded(20))
        await lab.link_regions("us", "eu", 15)
        assert lab.state()["region_links"]["us/eu"]["condition"] == {
            "up": {"latency_ms": 15},
            "down": {"latency_ms": 15},
        }


@pytest.mark.measures
async def test_the_default_regions_are_there_with_their_distances(emulator: str) -> None:
    async with patchbay.open_lab(emulator=emulator) as lab:
        us, eu, asia = await lab.add_default_regions()
        devices = [
            await lab.add_device(f"d-{r.name}", uplink=await lab.add_router(f"r-{r.name}", region=r))
            for r in (us, eu, asia)
        ]
        for name in (BESIDE, OPPOSITE):
            await lab.add_device(name, uplink="r-us")
        async with trio.open_nursery() as nursery:
            for a, b, asked in ((0, 1, 80), (0, 2, 160), (1, 2, 240)):
                nursery.start_soon(expect_round_trip, devices[a], devices[b].ip, asked)


# -- what is told of it


async def test_events_state_and_counters_tell_what_links_do(emulator: str, tmp_path: Any) -> None:
    async with open_links(emulator, {"d": "mobile-3g"}, run_dir=tmp_path) as lab:
        device, server = lab.device("d"), lab.device("server")
        assert lab.state()["devices"]["d"]["ifaces"][0]["link"]["up"]["latency_ms"] == 100
        await device.set_link_condition("eth0", {"loss_pct": 50, "latency_ms": 0, "jitter_ms": 0})
        arrived = await Flow(device, server).send_many(400)
        stats = await device.link_stats("eth0")
        assert stats.up.sent >= len(arrived)
        assert stats.up.dropped >= 400 - len(arrived) > 100
        assert stats.up.sent_bytes >= len(arrived) * (64 + 8 + 20 + 14)
        await device.set_link_condition("eth0", None)
        assert await device.link_stats("eth0") == patchbay.LinkStats()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    changes = [event for event in events if event["kind"] == "link_condition_changed"]
    assert [(c["node"], c["iface"], c["condition"].get("up", {}).get("loss_pct")) for c in changes] == [
        ("d", "eth0", 50),
        ("d", "eth0", None),
    ]
    assert json.loads((tmp_path / "state.json").read_text())["devices"]["d"]["ifaces"][0]["link"] == {}
