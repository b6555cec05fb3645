"""The relay between real interfaces: its conditions, its memory and time, its end."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import trio

from tests.emulator.links import (
    ENDS,
    RINGS,
    ROOT,
    ROUTER,
    SEND_UDP,
    Control,
    Link,
    expect_ping,
    open_link,
)
from tests.judging import All, Best, satisfy
from tests.patience import await_until

pytestmark = pytest.mark.kernel


async def processor_ms(link: Link, pid: int) -> float:
    """What a process has used so far."""
    return int((await link.run("mid", "cat", f"/proc/{pid}/schedstat")).split()[0]) / 1e6


async def resident_kib(link: Link, pid: int) -> int:
    words = (await link.run("mid", "cat", f"/proc/{pid}/status")).split()
    return int(words[words.index("VmRSS:") + 1])


@pytest.mark.ordinary
async def test_run_manually_it_relays_in_the_background_once_the_command_returns() -> None:
    async with open_link() as link:
        assert await link.ping(check=False) == []
        await link.by_hand("--up", "latency_ms=25", "--down", "latency_ms=25")
        assert len(await link.ping(1)) == 1
        await expect_ping(link, 50, 55)


async def test_run_manually_it_prints_what_is_wrong() -> None:
    async with open_link() as link:
        for words, status, text in (
            (["--up", "colour=1"], 2, b"relay: 'colour=1' is not KEY=VALUE of a known key"),
            (["--up", "trace=/no/file", "buffer_bytes=1"], 1, b"No such file or directory: /no/file"),
        ):
            with pytest.raises(subprocess.CalledProcessError) as failure:
                await link.by_hand(*words)
            assert failure.value.returncode == status
            assert text in str(failure.value).encode()


async def test_a_flush_loses_what_is_on_the_way() -> None:
    async with open_link(capped=True) as link:
        async with link.relay("--up", "latency_ms=3600000") as control:
            await link.python("dev", SEND_UDP, ROUTER, "10", "100")
            assert (await control.stats("up"))["queued"] == 10
            assert await control.ask({"flush": True}) == {"flush": True}
            assert (await control.stats("up"))["queued"] == 0


async def test_conditions_change_without_losing_what_is_on_the_way() -> None:
    async with open_link(capped=True) as link:
        async with link.relay() as control:
            sent = await expect_ping(link, 0, 5)
            late = [*ENDS, "--up", "latency_ms=40", "--down", "latency_ms=20"]
            assert await control.ask({"set": late}) == {"set": True}
            sent += await expect_ping(link, 60, 65)
            refused = await control.ask({"set": [*ENDS, "--up", "latency_ms=-1"]})
            assert refused["args"] == [22, "latency_ms=-1 is out of range"]
            refused = await control.ask({"set": ["--far", "a", "--near", "near", "--seed", "1"]})
            assert refused["args"] == [22, "this relay is between far and near"]
            sent += await expect_ping(link, 60, 65)
            assert await control.ask({"set": ENDS}) == {"set": True}
            sent += await expect_ping(link, 0, 5)
            up, down = await control.stats("up"), await control.stats("down")
            assert (up["received"], up["sent"], up["sent_bytes"]) == (sent, sent, sent * 98)
            # The router's bridge also tells that it snoops (IGMP).
            assert down["received"] == down["sent"] >= sent
            assert await control.end() == 0


@pytest.mark.ordinary
async def test_a_relay_that_cannot_start_tells_why() -> None:
    async with open_link() as link:
        await link.run("mid", "ip", "link", "del", "near")
        driver = str(ROOT / "tests" / "emulator" / "driver.py")
        async with link.background("mid", sys.executable, driver, "alone", *ENDS) as process:
            control = Control(process)
            await control.next()
            assert await control.next() == {
                "error": "OSError",
                "args": [19, "No such device", "near"],
            }
            assert await control.end() == 0


async def test_the_sender_sees_no_error_of_a_loss() -> None:
    async with open_link(capped=True) as link:
        async with link.relay("--up", "loss_pct=100") as control:
            await link.python("dev", SEND_UDP, ROUTER, "100", "100")
            assert (await control.stats("up"))["lost"] == 100


async def test_a_rate_is_kept() -> None:
    async with open_link(capped=True) as link:
        shape = ["rate_kbit=8000", "burst_bytes=3000", "buffer_bytes=1000000"]
        async with link.relay("--up", *shape) as control:
            # 500 frames of 1042 bytes and a ping, at 1000 bytes a ms, less the 3000 that pass at once. Of a
            # slow sender some have left before the ping begins to wait: it is the whole that takes the time.
            whole, ping = Best(518, math.inf, "ms"), Best(0, 521, "ms")

            async def sample() -> None:
                began = trio.current_time()
                await link.python("dev", SEND_UDP, ROUTER, "500", "1000")
                ping.values += await link.ping()
                whole.values.append((trio.current_time() - began) * 1000)

            await satisfy(All([whole, ping]), sample)
            up = await control.stats("up")
            assert (up["sent"], up["dropped"]) == (501 * len(ping.values), 0)


@pytest.mark.parametrize("rings", RINGS)
@pytest.mark.parametrize(("ns", "ifname"), [("mid", "far"), ("mid", "near"), ("dev", "eth0")])
async def test_a_cut_cable_loses_what_is_on_it_and_works_again_when_it_is_mended(
    ns: str, ifname: str, rings: str
) -> None:
    async with open_link(capped=True) as link:
        async with link.relay("--down", "latency_ms=1", rings=rings) as control:
            late = ["--up", "latency_ms=3600000", "--down", "latency_ms=1"]
            await control.ask({"set": [*ENDS, *late]})

            async def queued() -> bool:
                return (await control.stats("up"))["queued"] == 10

            async def emptied() -> bool:
                return (await control.stats("up"))["queued"] == 0

            await link.python("dev", SEND_UDP, ROUTER, "10", "100")
            await await_until(queued)
            await link.run(ns, "ip", "link", "set", ifname, "down")
            await await_until(emptied)
            await control.ask({"set": ENDS})
            await link.run(ns, "ip", "link", "set", ifname, "up")

            async def answers() -> bool:
                return bool(await link.ping(check=False))

            await await_until(answers)


async def test_without_its_interfaces_it_waits_quietly_for_the_end() -> None:
    async with open_link() as link:
        async with link.relay("--up", "latency_ms=1") as control:
            await link.ping()
            await link.run("mid", "ip", "netns", "del", "dev")

            async def gone() -> bool:
                return "far" not in await link.run("mid", "ls", "/sys/class/net")

            await await_until(gone)
            before = await processor_ms(link, control.pid)
            await link.run("mid", "sleep", "0.5")  # what it uses in this time is what is measured
            assert await processor_ms(link, control.pid) - before < 50
            assert (await control.stats("up"))["queued"] == 0
            assert await control.end() == 0


async def test_run_manually_a_relay_ends_with_its_interfaces() -> None:
    async with open_link() as link:
        await link.by_hand()
        assert await link.run("mid", "ip", "netns", "pids", "mid") != ""
        await link.run("mid", "ip", "link", "del", "near")

        async def ended() -> bool:
            return "relay" not in await link.run("router", "ps", "-ww", "-eo", "args")

        await await_until(ended)


async def test_a_flood_is_dropped_in_bounded_memory() -> None:
    async with open_link(capped=True) as link:
        shape = ["latency_ms=50", "rate_kbit=20000", "burst_bytes=15000", "buffer_bytes=500000", "limit=2000"]
        async with link.background("router", "iperf3", "-s", "-1", "--forceflush") as server:
            assert server.stdout
            await server.stdout.receive_some()
            async with link.relay("--up", *shape, "--down", *shape) as control:
                before = await resident_kib(link, control.pid)
                await link.run("dev", "iperf3", "-u", "-b", "0", "-t", "2", "-c", ROUTER)
                up: dict[str, Any] = await control.stats("up")
                assert up["dropped"] > 1000
                assert await resident_kib(link, control.pid) - before < 16_000
                assert min(await link.ping(3)) >= 100


async def test_a_killed_relay_leaves_the_link_dark_and_the_conversation_ended() -> None:
    async with open_link() as link:
        async with link.relay() as control:
            await link.ping()
            await link.run("mid", "kill", "-KILL", str(control.pid))

            async def dark() -> bool:
                return await link.ping(check=False) == []

            await await_until(dark)
            assert await control.end() == 9


async def test_an_idle_relay_uses_no_processor_time() -> None:
    async with open_link() as link:
        async with link.relay(
            "--up", "latency_ms=1", "rate_kbit=1000", "burst_bytes=1", "buffer_bytes=1"
        ) as it:
            before = await processor_ms(link, it.pid)
            await link.run("mid", "sleep", "0.5")  # what it uses in this time is what is measured
            assert await processor_ms(link, it.pid) - before < 50
