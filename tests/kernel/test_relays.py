"""The userspace emulator as a lab has it: its process, its end, traces, and what can be read of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import patchbay
from patchbay.lab.lab import Lab
from tests.judging import All, Best, satisfy
from tests.kernel.inside import processes_of
from tests.links.measuring import Flow, Pings, expect_round_trip, open_links, ping
from tests.links.rates import expect_rate, tcp, udp
from tests.patience import DEADLINE, await_until

pytestmark = pytest.mark.kernel


async def until_relays(lab: Lab, number: int) -> None:
    async def are_as_many() -> bool:
        return len(processes_of(lab, "relay")) == number

    await await_until(are_as_many, f"{number} relays")


async def until_event(lab: Lab, kind: str) -> dict[str, Any]:
    with trio.fail_after(DEADLINE):
        async for event in lab.events():
            if event.kind == kind:
                return dict(event.fields)
    raise AssertionError(f"the lab ended without {kind}")


async def carrier(node: patchbay.Node) -> bool:
    said = await node.run(["ip", "-j", "link", "show", "dev", "eth0"], capture_stdout=True)
    return "NO-CARRIER" not in json.loads(said.stdout)[0]["flags"]


async def has_lost_its_carrier(node: patchbay.Node) -> bool:
    return not await carrier(node)


@pytest.mark.ordinary
async def test_there_is_one_relay_for_each_of_a_few_links_with_a_condition_and_none_without() -> None:
    async with open_links("userspace", {"a": "wifi", "b": None, "c": {"up": {"loss_pct": 1}}}) as lab:
        assert len(processes_of(lab, "relay")) == 2
        await lab.device("a").set_link_condition("eth0", None)
        await until_relays(lab, 1)
        await lab.device("b").set_link_condition("eth0", "wifi")
        await lab.router("r-b").set_downlink_condition("wifi")
        await until_relays(lab, 3)


PROCESSES, LINKS_OF_ONE = 32, 8


def open_many(number: int) -> contextlib.AbstractAsyncContextManager[Lab]:
    """A lab with so many links with a condition, of `d-0` and so on."""
    spec = {
        "router": [{"name": "r", "preset": "datacenter"}, {"name": "other", "preset": "datacenter"}],
        "device": {
            "server": {"eth0": {"gateway": "other"}},
            "d": {"count": number, "eth0": {"gateway": "r", "link": {"latency_ms": 5}}},
        },
    }
    return patchbay.open_lab(spec, emulator="userspace")


async def served(lab: Lab) -> list[tuple[int, set[str]]]:
    """The relays, in this machine's numbers, and the devices whose links each serves; most links first."""
    links = json.loads((await lab.router("r").run(["ip", "-j", "link"], capture_stdout=True)).stdout)
    names = {str(link["ifindex"]): link["ifname"] for link in links}
    # net/packet/af_packet.c, packet_seq_show: the fifth word is the interface, the last one the inode.
    sockets = (await lab.router("r").run(["cat", "/proc/net/packet"], capture_stdout=True)).stdout.decode()
    rows = [line.split() for line in sockets.splitlines()[1:]]
    ports = {f"socket:[{row[-1]}]": names.get(row[4], "") for row in rows}
    found = [(pid, {ports.get(file, "") for file in files_of(pid)}) for pid in processes_of(lab, "relay")]
    found = [(pid, {name for name in names if name.startswith("d-")}) for pid, names in found]
    return sorted(found, key=lambda each: len(each[1]), reverse=True)


def files_of(pid: int) -> list[str]:
    return [os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()]


async def test_many_links_share_relays_of_which_none_has_more_than_eight() -> None:
    async with open_many(PROCESSES * LINKS_OF_ONE) as lab:
        assert [len(names) for _, names in await served(lab)] == [LINKS_OF_ONE] * PROCESSES
        await lab.add_device("d-late", uplink=lab.router("r"), link="wifi")
        assert [len(names) for _, names in await served(lab)] == [LINKS_OF_ONE] * PROCESSES + [1]


async def test_a_relay_with_much_to_do_on_one_link_serves_the_others() -> None:
    async with open_many(PROCESSES + 1) as lab:
        (_, names), *_ = await served(lab)
        busy, other = (lab.device(name) for name in names)
        target = lab.device("server").ip
        async with trio.open_nursery() as floods:
            floods.start_soon(busy.run, [sys.executable, "-c", FLOOD, str(target)])

            async def is_flooded() -> bool:
                return (await busy.link_stats("eth0")).up.sent > 10_000

            await await_until(is_flooded)
            await ping(other, target, 20, 0.01, DEADLINE)
            stats = await other.link_stats("eth0")
            floods.cancel_scope.cancel()
        assert stats.up.sent >= 20
        assert stats.up.dropped == stats.down.dropped == 0


FLOOD = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    sock.sendto(b"." * 64, (sys.argv[1], 9))
"""


async def test_every_link_of_a_relay_that_dies_is_lost() -> None:
    with pytest.raises(patchbay.LinkLostError) as lost:
        async with open_many(PROCESSES + 1) as lab:
            (pid, names), (_, others), *_ = await served(lab)
            first, second = sorted(names)
            os.kill(pid, signal.SIGKILL)
            for name in names:
                await await_until(partial(has_lost_its_carrier, lab.device(name)))
            assert await carrier(lab.device(others.pop()))
            await lab.device(first).set_link_condition("eth0", "wifi")
            assert (await served(lab))[-1][1] == {first}
    assert str(lost.value) == f"the relay of the link of device '{second}' on eth0 ended (killed?)"


@pytest.mark.ordinary
async def test_a_relay_that_dies_takes_the_link_down_and_the_lab_says_so(tmp_path: Path) -> None:
    with pytest.raises(patchbay.LinkLostError, match="the relay of the link of device 'd' on eth0 ended"):
        async with open_links("userspace", {"d": "wifi"}, run_dir=tmp_path) as lab:
            device, server = lab.device("d"), lab.device("server").ip
            assert await carrier(device)
            (pid,) = processes_of(lab, "relay")
            os.kill(pid, signal.SIGKILL)
            told = await until_event(lab, "service_lost")
            assert (told["node"], told["iface"]) == ("d", "eth0")
            assert "killed" in told["reason"]
            await await_until(partial(has_lost_its_carrier, device))
            assert not (await ping(device, server, 2, 0.1, 0.3)).times
            with pytest.raises(patchbay.LinkLostError, match="nothing counts any more"):
                await device.link_stats("eth0")
            # Addresses and routes are as they were.
            assert str(device.ip) in (await device.run(["ip", "addr"], capture_stdout=True)).stdout.decode()
            assert lab.state()["devices"]["d"]["ifaces"][0]["link_lost"] is True
            journal = [record for record in lab.commands if record.argv[-1] == "down"]
            assert [record.why for record in journal] == ["break the link of device 'd' on eth0"] * 2


async def test_a_lost_link_that_cannot_be_cut_is_one_plain_error(break_command: Callable[..., Any]) -> None:
    with pytest.raises(patchbay.LinkLostError) as raised:
        async with open_links("userspace", {"d": "wifi"}) as lab:
            (pid,) = processes_of(lab, "relay")
            with break_command(lambda command: command.argv[-1] == "down"):
                os.kill(pid, signal.SIGKILL)
                await await_until(partial(has_undone, lab))
    assert "the relay of the link of device 'd' on eth0 ended (killed?)" in str(raised.value)
    assert "could not break the link of device 'd' on eth0" in str(raised.value)


async def has_undone(lab: Lab) -> bool:
    return any(record.undone for record in lab.commands)


async def test_a_lost_link_that_needs_no_relay_any_more_is_no_error() -> None:
    async with open_links("userspace", {"d": "wifi"}) as lab:
        (pid,) = processes_of(lab, "relay")
        os.kill(pid, signal.SIGKILL)
        await until_event(lab, "service_lost")
        await lab.device("d").set_link_condition("eth0", None)
        assert await carrier(lab.device("d"))
        (pong,) = (await ping(lab.device("d"), lab.device("server").ip, 1, 0.1, DEADLINE)).times
        assert pong


async def test_a_lost_link_comes_back_when_its_condition_is_set_again() -> None:
    async with open_links("userspace", {"d": "wifi"}) as lab:
        device = lab.device("d")
        (pid,) = processes_of(lab, "relay")
        os.kill(pid, signal.SIGKILL)
        await until_event(lab, "service_lost")
        await device.set_link_condition("eth0", "wifi")
        assert await carrier(device)
        assert len((await ping(device, lab.device("server").ip, 20, 0.01)).times) >= 17
        assert "link_lost" not in lab.state()["devices"]["d"]["ifaces"][0]


@pytest.mark.ordinary
async def test_a_lab_that_ends_ends_its_relays() -> None:
    async with open_links("userspace", {"d": "wifi"}) as lab:
        (pid,) = processes_of(lab, "relay")
        ends = os.pidfd_open(pid)
    # pidfd_open(2): readable once the process has ended.
    with trio.fail_after(DEADLINE):
        await trio.lowlevel.wait_readable(ends)
    os.close(ends)


async def test_adding_a_device_whose_link_cannot_be_leaves_the_lab_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_links("userspace", {"d": None}) as lab:
        before, router = lab.state(), lab.router("r-d")
        with monkeypatch.context() as patch:
            patch.setattr(
                "patchbay.plan.conditions._relay_args", lambda wire: ("--far", "nobody", "--near", "x")
            )
            with pytest.raises(patchbay.CommandFailed, match="could not condition the link of device 'late'"):
                await lab.add_device("late", uplink=router, link="wifi")
        assert lab.state() == before
        await until_relays(lab, 0)
        late = await lab.add_device("late", uplink=router, link={"latency_ms": 10})
        await expect_round_trip(late, lab.device("server").ip, 20)


async def test_a_relay_that_cannot_keep_up_is_reported_by_an_event_and_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_links("userspace", {"d": {"latency_ms": 1}}) as lab:
        device, server = lab.device("d"), lab.device("server")
        signal_relays(lab, signal.SIGSTOP)
        # More than a ring holds (emulator/packets.py).
        with device.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(5000):
                sock.sendto(bytes(1400), (str(server.ip), 9))
        signal_relays(lab, signal.SIGCONT)
        told = await until_event(lab, "link_overloaded")
        stats = await device.link_stats("eth0")
        assert (told["node"], told["iface"]) == ("d", "eth0")
        assert 0 < told["missed"]["up"] <= stats.up.detail["missed"] < 5000
        assert "relay of the link of device 'd' on eth0 cannot keep up" in caplog.text
        assert f"missed {told['missed']['up']} packets up" in caplog.text


def signal_relays(lab: Lab, signum: int) -> None:
    for pid in processes_of(lab, "relay"):
        os.kill(pid, signum)


async def test_what_comes_after_a_restored_region_link_is_not_lost_by_a_relay_that_was_held_up() -> None:
    spec = {
        "region": {"us": {"latencies": {"eu": 10}}, "eu": {}},
        "router": [{"name": name, "preset": "datacenter", "region": name} for name in ("us", "eu")],
        "device": {"america": {"eth0": {"gateway": "us"}}, "europe": {"eth0": {"gateway": "eu"}}},
    }
    async with patchbay.open_lab(spec, emulator="userspace") as lab, trio.open_nursery() as nursery:
        flow, sent = Flow(lab.device("america"), lab.device("europe")), trio.Event()
        signal_relays(lab, signal.SIGSTOP)

        async def break_and_restore() -> None:
            await lab.break_region_link("us", "eu")
            await lab.restore_region_link("us", "eu")
            flow.send(7)
            sent.set()

        nursery.start_soon(break_and_restore)
        with trio.move_on_after(1):  # a machine that is slower only misses a fault
            await sent.wait()
        signal_relays(lab, signal.SIGCONT)
        await sent.wait()
        assert (await flow.send_many(0)) == [7]


# -- traces


@pytest.mark.measures
async def test_a_trace_is_the_rate_of_its_direction(tmp_path: Path) -> None:
    """One packet of 1514 bytes each millisecond is 12.1 Mbit/s; three in four, 9.1."""
    (tmp_path / "even").write_text("".join(f"{ms}\n" for ms in range(1, 101)))
    (tmp_path / "odd").write_text("1\n2\n3\n\n5\n6\n7\n8\n8\n")
    link = {"up": {"trace": str(tmp_path / "even")}, "down": {"trace": str(tmp_path / "odd")}}
    async with open_links("userspace", {"d": link}) as lab:
        device, server = lab.device("d"), lab.device("server")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_rate, udp, device, server, 12.112)
            nursery.start_soon(expect_rate, udp, server, device, 12.112)
        await expect_rate(tcp, device, server, 12.112)

        async def nothing_waits() -> bool:
            return (await device.link_stats("eth0")).up.queued == 0

        await await_until(nothing_waits)  # or the buffer is still full of TCP's segments
        assert len(await Flow(device, server).send_many(100)) == 100


@pytest.mark.measures
async def test_packets_wait_for_the_opportunities_of_a_trace(tmp_path: Path) -> None:
    """Nothing is delivered in the second half of each 400 ms."""
    (tmp_path / "pauses").write_text("".join(f"{ms}\n" for ms in range(1, 200)) + "400\n")
    async with open_links("userspace", {"d": {"up": {"trace": str(tmp_path / "pauses")}}}) as lab:
        longest = Best(0, 205, "ms")
        # A ping that the machine holds up may miss the beginning of each pause.
        missed = Best(0, 50, "ms of the pause")

        async def sample() -> None:
            pings = await ping(lab.device("d"), lab.device("server").ip, 120, 0.01, DEADLINE)
            assert len(pings.times) == 120
            longest.values.append(max(pings.times))
            missed.values.append(max(0, 200 - max(pings.times)))

        await satisfy(All([longest, missed]), sample)


async def test_a_trace_takes_the_relay_even_where_the_kernel_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "even").write_text("1\n")
    async with open_links("netem", {"d": {"trace": str(tmp_path / "even")}}) as lab:
        assert len(processes_of(lab, "relay")) == 1
        assert (await ping(lab.device("d"), lab.device("server").ip, 3)).times


# -- by hand


def by_hand() -> dict[str, str]:
    """The environment of somebody whose python3 knows patchbay."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


async def test_the_replayed_trace_of_a_lab_starts_its_relays(tmp_path: Path) -> None:
    async with open_links("userspace", {"d": {"latency_ms": 20}}) as lab:
        target = lab.device("server").ip
        await lab.device("d").set_link_condition("eth0", {"latency_ms": 40})
        script = lab.trace()
    assert script.count("python3 -m patchbay.emulator.relay") == 1
    (tmp_path / "lab.sh").write_text(script)
    words = ["nsenter", "--net=/run/netns/d", "ping", "-n", "-c5", "-i.1", str(target)]
    argv = ["sh", str(tmp_path / "lab.sh"), *words]
    done = await trio.run_process(argv, env=by_hand(), capture_stdout=True)
    times = Pings(done.stdout.decode(), 5).times
    assert min(times) >= 80 - 0.05
    assert min(times) < 120  # what it was before it was changed is 40, what is beside it less than 1
