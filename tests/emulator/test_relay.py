"""The relay between real interfaces."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
import trio

from tests.emulator.links import ENDS, ROOT, ROUTER, Control, Link, Told, expect_ping, open_link
from tests.judging import All, Best, satisfy
from tests.patience import await_until

pytestmark = pytest.mark.kernel

# Receives a TCP stream of known bytes and says whether they are right; told where to listen.
SERVE_TCP = """
import hashlib, socket, sys
with socket.create_server((sys.argv[1], 5000)) as server:
    print('"listening"', flush=True)
    sock, _ = server.accept()
    data = bytearray()
    while chunk := sock.recv(1 << 20):
        data += chunk
    sock.sendall(hashlib.sha256(data).digest())
"""
SEND_TCP = """
import hashlib, random, socket, sys
data = random.Random(1).randbytes(int(sys.argv[2]))
with socket.create_connection((sys.argv[1], 5000)) as sock:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(32, socket.MSG_WAITALL) == hashlib.sha256(data).digest()
"""
SEND_UDP = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    for _ in range(int(sys.argv[2])):
        sock.sendto(bytes(int(sys.argv[3])), (sys.argv[1], 5000))
"""
# A tagged frame whose checksum is left to the hardware, and what the kernel shows of it at the other end.
SEND_TAGGED = """
import socket, struct
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
    sock.setsockopt(263, 15, 1)  # PACKET_VNET_HDR
    sock.bind(("eth0", 0))
    vnet = struct.pack("=BBHHHH", 1, 0, 0, 0, 38, 6)
    frame = b"\\xff" * 6 + bytes(6) + struct.pack(">HHH", 0x8100, 7, 0x88B5) + bytes(28) + b"to be summed"
    sock.send(vnet + frame)
"""
SEE_TAG = """
import json, socket, struct
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
    sock.setsockopt(263, 15, 1)  # PACKET_VNET_HDR
    sock.setsockopt(263, 8, 1)  # PACKET_AUXDATA
    sock.bind(("p1", 3))
    print('"looking"', flush=True)
    while True:
        data, messages, _, _ = sock.recvmsg(4096, 100)
        tci = struct.unpack("=IIIHHHH", messages[0][2])[5]
        if tci:
            break
    print(json.dumps([tci, struct.unpack("=6xHH", data[:10])[0], data[10 + 42 :].decode()]), flush=True)
"""
# Numbered datagrams, in turn one alone and ten in one frame, which the kernel takes apart at the other end.
SEND_NUMBERED = """
import itertools, socket, struct, sys
number = map(struct.Struct(">I").pack, itertools.count())
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.connect((sys.argv[1], 5000))
    for burst in range(30):
        for _ in range(10):
            sock.setsockopt(17, 103, 0)  # UDP_SEGMENT
            sock.send(next(number))
            sock.setsockopt(17, 103, 400)
            sock.send(b"".join(next(number).ljust(400, b"-") for _ in range(10)))
        sock.setsockopt(17, 103, 0)
        sock.send(b"all of burst" if burst < 29 else b"end")
        sock.recv(100)
"""
SEE_NUMBERS = """
import json, socket, struct
found = []
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("", 5000))
    print('"looking"', flush=True)
    data = b""
    while data != b"end":
        data, sender = sock.recvfrom(1000)
        if data[0] == 0:
            found.append(struct.unpack_from(">I", data)[0])
        else:
            sock.sendto(b"got it", sender)
print(json.dumps(found), flush=True)
"""


def python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-c", code, *args]


async def send_tcp(link: Link, size: int) -> None:
    """From dev to router, and check what has arrived."""
    async with link.background("router", *python(SERVE_TCP, ROUTER)) as server:
        assert await Told(server).next() == "listening"
        await link.python("dev", SEND_TCP, ROUTER, str(size))


async def counter(link: Link, ns: str, name: str) -> int:
    # nstat(8) keeps a history in /tmp, and refuses one that belongs to somebody else.
    env = {"NSTAT_HISTORY": "/run/patchbay/nstat"}
    found = json.loads(await link.run(ns, "nstat", "-asz", "--json", env=env))
    return int(found["kernel"][name])


async def processor_ms(link: Link, pid: int) -> float:
    """What a process has used so far."""
    return int((await link.run("mid", "cat", f"/proc/{pid}/schedstat")).split()[0]) / 1e6


async def resident_kib(link: Link, pid: int) -> int:
    words = (await link.run("mid", "cat", f"/proc/{pid}/status")).split()
    return int(words[words.index("VmRSS:") + 1])


@pytest.mark.ordinary
async def test_by_hand_it_relays_from_the_background_once_it_returns() -> None:
    async with open_link() as link:
        assert await link.ping(check=False) == []
        await link.by_hand("--up", "latency_ms=25", "--down", "latency_ms=25")
        assert len(await link.ping(1)) == 1
        await expect_ping(link, 50, 55)


async def test_by_hand_it_says_what_is_wrong() -> None:
    async with open_link() as link:
        for words, status, text in (
            (["--up", "colour=1"], 2, b"relay: 'colour=1' is not KEY=VALUE of a known key"),
            (["--up", "trace=/no/file", "buffer_bytes=1"], 1, b"No such file or directory: /no/file"),
        ):
            with pytest.raises(subprocess.CalledProcessError) as failure:
                await link.by_hand(*words)
            assert failure.value.returncode == status
            assert text in str(failure.value).encode()


@pytest.mark.ordinary
async def test_a_relay_that_cannot_start_tells_why() -> None:
    async with open_link() as link:
        await link.run("mid", "ip", "link", "del", "near")
        driver = str(ROOT / "tests" / "emulator" / "driver.py")
        async with link.background("mid", sys.executable, driver, *ENDS) as process:
            control = Control(process)
            await control.next()
            assert await control.next() == {"errno": 19, "error": "No such device: near"}
            assert await control.end() == 0


async def test_conditions_change_without_losing_what_is_on_the_way() -> None:
    async with open_link(capped=True) as link:
        async with link.relay() as control:
            sent = await expect_ping(link, 0, 5)
            late = [*ENDS, "--up", "latency_ms=40", "--down", "latency_ms=20"]
            assert await control.ask({"set": late}) == {"set": True}
            sent += await expect_ping(link, 60, 65)
            refused = await control.ask({"set": [*ENDS, "--up", "latency_ms=-1"]})
            assert refused == {"errno": 22, "error": "latency_ms=-1 is out of range"}
            refused = await control.ask({"set": ["--far", "a", "--near", "near", "--seed", "1"]})
            assert refused["error"] == "this relay is between far and near"
            sent += await expect_ping(link, 60, 65)
            assert await control.ask({"set": ENDS}) == {"set": True}
            sent += await expect_ping(link, 0, 5)
            up, down = await control.stats("up"), await control.stats("down")
            assert (up["received"], up["sent"], up["sent_bytes"]) == (sent, sent, sent * 98)
            # The router's bridge also tells that it snoops (IGMP).
            assert down["received"] == down["sent"] >= sent
            assert await control.end() == 0


async def test_a_flush_loses_what_is_on_the_way() -> None:
    async with open_link(capped=True) as link:
        async with link.relay("--up", "latency_ms=3600000") as control:
            await link.python("dev", SEND_UDP, ROUTER, "10", "100")
            assert (await control.stats("up"))["queued"] == 10
            assert await control.ask({"flush": True}) == {"flush": True}
            assert (await control.stats("up"))["queued"] == 0


@pytest.mark.parametrize(
    "conditions",
    [
        ["latency_ms=5", "jitter_ms=2"],
        ["latency_ms=2", "loss_pct=1", "duplicate_pct=1"],
        ["latency_ms=2", "reorder_pct=5", "corrupt_pct=0.5"],
        ["rate_kbit=100000", "burst_bytes=15000", "buffer_bytes=100000"],
    ],
    ids=lambda words: words[-1].partition("=")[0],
)
async def test_tcp_arrives_intact(conditions: list[str]) -> None:
    async with open_link(capped=True) as link:
        async with link.relay("--up", *conditions, "--down", *conditions) as control:
            await send_tcp(link, 2_000_000)
            up = await control.stats("up")
            assert up["sent_bytes"] >= 2_000_000
            assert up["refused"] == 0


@pytest.mark.ordinary
async def test_frames_of_many_segments_pass_whole() -> None:
    async with open_link() as link:
        async with link.relay() as control:
            await send_tcp(link, 50_000_000)
            up = await control.stats("up")
            assert up["received_bytes"] / up["received"] > 20_000
            assert up["refused"] == 0


@pytest.mark.parametrize("conditions", [[], ["latency_ms=5", "jitter_ms=5"]], ids=["idle", "delayed"])
async def test_frames_of_many_segments_keep_their_place_among_others(conditions: list[str]) -> None:
    async with open_link() as link:
        async with (
            link.relay("--up", *conditions),
            link.background("router", *python(SEE_NUMBERS)) as process,
        ):
            seer = Told(process)
            assert await seer.next() == "looking"
            await link.python("dev", SEND_NUMBERED, ROUTER)
            assert await seer.next() == list(range(3300))


@pytest.mark.parametrize("mtu", [9000, 65535])
async def test_jumbo_frames_pass(mtu: int) -> None:
    async with open_link(mtu=mtu, capped=True) as link:
        async with link.relay("--up", "latency_ms=1"):
            await link.ping(3, "-M", "do", "-s", str(min(mtu, 65535) - 28))
            await send_tcp(link, 5_000_000)


async def test_a_larger_mtu_later_passes_too() -> None:
    async with open_link() as link:
        async with link.relay():
            for ns, ifname in (("mid", "far"), ("mid", "near"), ("dev", "eth0"), ("router", "p1")):
                await link.run(ns, "ip", "link", "set", ifname, "mtu", "4000")
            await link.run("router", "ip", "link", "set", "lan", "mtu", "4000")
            assert len(await link.ping(3, "-M", "do", "-s", "3972")) == 3


async def test_vlan_tags_survive() -> None:
    async with open_link() as link:
        async with link.relay(), link.background("router", *python(SEE_TAG)) as process:
            seer = Told(process)
            assert await seer.next() == "looking"
            await link.python("dev", SEND_TAGGED)
            # The kernel takes the tag off before it shows the frame, and counts from there.
            assert await seer.next() == [7, 34, "to be summed"]


async def test_corrupt_packets_reach_no_socket() -> None:
    async with open_link(capped=True) as link:
        async with link.relay("--up", "corrupt_pct=100") as control:
            await link.python("dev", SEND_UDP, ROUTER, "1000", "1000")

            async def all_through() -> bool:
                return (await control.stats("up"))["sent"] == 1000

            await await_until(all_through)
            assert (await control.stats("up"))["corrupted"] == 1000
            # The rest had the bit in the IP header, or in the port of the checksum's own field.
            assert await counter(link, "router", "UdpInCsumErrors") > 900
            assert await counter(link, "router", "UdpInDatagrams") == 0


async def test_loss_is_not_told_to_the_sender() -> None:
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


@pytest.mark.parametrize(("ns", "ifname"), [("mid", "far"), ("mid", "near"), ("dev", "eth0")])
async def test_a_cut_cable_loses_what_is_on_it_and_works_again_when_it_is_mended(
    ns: str, ifname: str
) -> None:
    async with open_link(capped=True) as link:
        async with link.relay("--up", "latency_ms=3600000", "--down", "latency_ms=1") as control:

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


async def test_by_hand_it_ends_with_its_interfaces() -> None:
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
