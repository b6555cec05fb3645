"""What the tests of links share: labs whose links they choose, and other people's tools as judges."""

from __future__ import annotations

import contextlib
import json
import math
import re
import socket
import statistics
import subprocess
from collections.abc import AsyncIterator, Mapping
from functools import cache
from typing import Any

import trio

import patchbay
from patchbay.lab.lab import Lab

# An Ethernet frame: what rates are of.
HEADER = 14
TCP_PAYLOAD, TCP_FRAME = 1448, 1514
UDP_PAYLOAD = 1400
UDP_FRAME = UDP_PAYLOAD + 8 + 20 + HEADER
UDP_SEGMENT = 103  # include/uapi/linux/udp.h
MOST_SEGMENTS = 40


@cache
def host_has_netem() -> bool:
    argv = [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "tc",
        "qdisc",
        "add",
        "dev",
        "lo",
        "root",
        "netem",
    ]
    return subprocess.run([*argv, "delay", "1ms"], capture_output=True, check=False).returncode == 0


@contextlib.asynccontextmanager
async def open_links(
    emulator: str, links: Mapping[str, Any], *, bound: float = 120, **options: Any
) -> AsyncIterator[Lab]:
    """A server, and a device for each of `links`, each behind a public router of its own, without NAT."""
    topology: dict[str, Any] = {
        "router": [
            {"name": "dc", "preset": "datacenter"},
            *({"name": f"r-{name}", "preset": "datacenter"} for name in links),
        ],
        "device": {
            "server": {"eth0": {"gateway": "dc"}},
            **{
                name: {"eth0": {"gateway": f"r-{name}", **({"link": link} if link is not None else {})}}
                for name, link in links.items()
            },
        },
    }
    with trio.fail_after(bound):
        async with patchbay.open_lab(topology, emulator=emulator, **options) as lab:
            yield lab


# -- ping


class Pings:
    """What ping says: `times` in ms by sequence number, in the order in which replies came."""

    def __init__(self, text: str, sent: int) -> None:
        found = re.findall(r"icmp_seq=(\d+) ttl=\d+ time=([\d.]+) ms(?! \(DUP)", text)
        self.order = [int(seq) for seq, _ in found]
        self.times = [float(ms) for _, ms in found]
        self.sent = sent
        self.duplicates = text.count("(DUP!)")

    def __repr__(self) -> str:
        return f"<{len(self.times)} of {self.sent} pings: {self.times}>"

    @property
    def median(self) -> float:
        return statistics.median(self.times)


async def ping(
    source: patchbay.Node,
    target: object,
    count: int = 10,
    interval: float = 0.05,
    wait: float = 2,
    size: int = 56,
) -> Pings:
    argv = [
        "ping",
        "-n",
        "-c",
        str(count),
        "-i",
        str(interval),
        "-W",
        str(wait),
        "-s",
        str(size),
        str(target),
    ]
    done = await source.run(argv, check=False, capture_stdout=True, capture_stderr=True)
    return Pings(done.stdout.decode(), count)


# -- datagrams


class Flow:
    """Numbered datagrams from one node to another; what is lost on the way is nobody's secret."""

    def __init__(self, source: patchbay.Node, target: patchbay.Node) -> None:
        self._out = source.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._in = target.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._in.bind(("0.0.0.0", 0))
        self._in.setblocking(False)
        self._to = (str(target.ip), self._in.getsockname()[1])
        self.arrived: list[int] = []
        self._ends = 0

    def send(self, number: int, size: int = 64) -> None:
        assert self._out.sendto(number.to_bytes(4, "big").ljust(size, b"."), self._to) == size

    def send_as_one(self, numbers: range, size: int = 1000) -> None:
        """Hand several to the kernel in one piece, which it takes apart only where it must."""
        self._out.setsockopt(socket.SOL_UDP, UDP_SEGMENT, size)
        data = b"".join(number.to_bytes(4, "big").ljust(size, b".") for number in numbers)
        assert self._out.sendto(data, self._to) == len(data)
        self._out.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 0)

    def take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.arrived.append(int.from_bytes(self._in.recv(65535)[:4], "big"))

    async def send_many(
        self, count: int, *, burst: int = 10, pause: float = 0.002, ends: int = 1
    ) -> list[int]:
        """Send `count` numbers and wait for those that arrive; in bursts, for no buffer of ours to fill.

        `ends`: how many packets sent after them have to arrive; more than one where one may overtake.
        """
        for start in range(0, count, burst):
            for number in range(start, min(start + burst, count)):
                self.send(number)
            await trio.sleep(pause)
            self.take()
        # What is sent last arrives last. It may be lost too, so it is sent until it is there.
        self._ends += 1
        end = (1 << 31) + self._ends
        while self.arrived.count(end) < ends:
            self.send(end)
            await trio.sleep(0.01)
            self.take()
        return [number for number in self.arrived if number < 1 << 31]


def binomial(sent: int, probability: float, *, sigmas: float = 4.5) -> tuple[float, float]:
    """Between which numbers all but one in 150,000 outcomes lie."""
    spread = sigmas * math.sqrt(sent * probability * (1 - probability)) + 1
    return sent * probability - spread, sent * probability + spread


# -- iperf3


async def iperf(
    source: patchbay.Node, server: patchbay.Node, *options: str, port: int = 5201
) -> dict[str, Any]:
    """What a client in `source` says at its end of a server for it alone."""
    async with server.open_process(
        ["iperf3", "-s", "-1", "-p", str(port), "--forceflush"], stdout=subprocess.PIPE
    ) as process:
        heard = b""
        while b"Server listening" not in heard:
            heard += await process.stdout.receive_some()
        argv = ["iperf3", "-J", "-c", str(server.ip), "-p", str(port), *options]
        done = await source.run(argv, capture_stdout=True, check=False)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert "error" not in answer, answer["error"]
    return answer["end"]  # type: ignore[no-any-return]


async def tcp_rate(
    source: patchbay.Node, server: patchbay.Node, *options: str, seconds: int = 4, port: int = 5201
) -> float:
    """Mbit/s of frames that arrive, once the connection is at its speed."""
    end = await iperf(source, server, "-O", "1", "-t", str(seconds), *options, port=port)
    return float(end["sum_received"]["bits_per_second"]) * TCP_FRAME / TCP_PAYLOAD / 1e6


async def udp_rate(
    source: patchbay.Node, target: patchbay.Node, offered: float, *, seconds: float = 2, settle: float = 1
) -> float:
    """Mbit/s of frames that reach the target's interface, by its own counter, of the `offered`.

    They are handed to the kernel many at a time (UDP_SEGMENT, udp(7)): a system call for each is more
    than a kernel under emulation can do.
    """
    with (
        source.socket(socket.AF_INET, socket.SOCK_DGRAM) as out,
        target.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
    ):
        sink.bind(("0.0.0.0", 0))
        out.setsockopt(socket.SOL_UDP, UDP_SEGMENT, UDP_PAYLOAD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_evenly, out, (str(target.ip), sink.getsockname()[1]), offered)
            await trio.sleep(settle)
            began, first = trio.current_time(), await _received_bytes(target)
            await trio.sleep(seconds)
            took, last = trio.current_time() - began, await _received_bytes(target)
            nursery.cancel_scope.cancel()
    return (last - first) * 8 / took / 1e6


async def _send_evenly(out: socket.socket, to: tuple[str, int], offered: float) -> None:
    began, sent = trio.current_time(), 0
    while True:
        due = int((trio.current_time() - began) * offered * 1e6 / 8 / UDP_FRAME) - sent
        for start in range(0, due, MOST_SEGMENTS):
            with contextlib.suppress(BlockingIOError):
                out.sendto(b"." * (UDP_PAYLOAD * min(MOST_SEGMENTS, due - start)), to)
        sent += due
        await trio.sleep(0.01)


async def _received_bytes(node: patchbay.Node) -> int:
    said = await node.run(["ip", "-s", "-j", "link", "show", "dev", "eth0"], capture_stdout=True)
    return int(json.loads(said.stdout)[0]["stats64"]["rx"]["bytes"])
