"""The relay between real interfaces: which frames pass, and how they look behind it."""

from __future__ import annotations

import json

import pytest

from tests.emulator.links import (
    RINGS,
    ROOT,
    ROUTER,
    SEND_UDP,
    Link,
    Told,
    crowd,
    open_link,
    packet_sockets,
    python,
)
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

# What a tap reads when frames come in the moment in which both its socket and its new ring hear them.
READ_WHILE_IT_CHANGES = """
import json, subprocess, sys
from patchbay.emulator import tap
send = ["ip", "netns", "exec", "dev", sys.executable, "-c", sys.argv[1], sys.argv[2]]
hear = tap.PacketRing.hear

def hear_and_more(ring, ifname):
    hear(ring, ifname)
    subprocess.run([*send, "5", "1000"], check=True)

tap.PacketRing.hear = hear_and_more
far = tap.Tap("far", lambda *_: None)
subprocess.run([*send, "50", "1000"], check=True)
found = 0
while not far._rings:
    far.wake()
    found += len(far.read(float("inf")))
    far.release()
subprocess.run([*send, "5", "1000"], check=True)
while frames := far.read(float("inf")):
    found += len(frames)
    far.release()
print(json.dumps(found))
"""


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
            assert await packet_sockets(link) > 4


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


@pytest.mark.parametrize("rings", RINGS)
async def test_a_larger_mtu_later_passes_too(rings: str) -> None:
    async with open_link() as link:
        async with link.relay(rings=rings):
            for ns, ifname in (("mid", "far"), ("mid", "near"), ("dev", "eth0"), ("router", "p1")):
                await link.run(ns, "ip", "link", "set", ifname, "mtu", "4000")
            await link.run("router", "ip", "link", "set", "lan", "mtu", "4000")
            assert len(await link.ping(3, "-M", "do", "-s", "3972")) == 3


async def test_a_link_that_is_used_much_has_room_for_a_thousand_frames() -> None:
    async with open_link(capped=True) as link:
        async with link.relay("--up", "latency_ms=1", rings="none") as control:
            await link.ping()
            assert await packet_sockets(link) == 2
            await crowd(link, control)
            before = await control.stats("up")
            await link.run("mid", "kill", "-STOP", str(control.pid))
            await link.python("dev", SEND_UDP, ROUTER, "1000", "1000")
            await link.run("mid", "kill", "-CONT", str(control.pid))

            async def all_through() -> bool:
                return (await control.stats("up"))["sent"] == before["sent"] + 1000

            await await_until(all_through)
            assert (await control.stats("up"))["missed"] == 0


@pytest.mark.parametrize("rings", RINGS)
async def test_vlan_tags_survive(rings: str) -> None:
    async with open_link() as link:
        seeing = link.background("router", *python(SEE_TAG))
        async with link.relay(rings=rings), seeing as process:
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


async def test_no_frame_is_lost_or_comes_twice_when_a_ring_takes_over() -> None:
    async with open_link(capped=True) as link:
        env = {"PYTHONPATH": str(ROOT)}
        read = await link.python("mid", READ_WHILE_IT_CHANGES, SEND_UDP, ROUTER, env=env)
        assert json.loads(read) == 60
