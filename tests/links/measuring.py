"""What the tests of links share: labs whose links they choose, pings, and numbered datagrams."""

from __future__ import annotations

import contextlib
import re
import socket
import statistics
import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any

import trio

import patchbay
from patchbay.lab.lab import Lab
from tests.judging import Delay, Spread, binomial, satisfy
from tests.patience import DEADLINE
from tests.sockets import held

UDP_SEGMENT = 103  # include/uapi/linux/udp.h
IP_RECVERR = 11  # include/uapi/linux/in.h
# include/uapi/linux/net_tstamp.h, include/uapi/asm-generic/socket.h
SO_TIMESTAMPNS, SO_TIMESTAMPING = 35, 37
TX_SOFTWARE, REPORT_SOFTWARE, OPT_ID, OPT_TSONLY = 1 << 1, 1 << 4, 1 << 7, 1 << 11

BESIDE, OPPOSITE = "beside", "opposite"
"""Two devices with perfect links, in every lab of `open_links`: the control of each measurement."""


@contextlib.asynccontextmanager
async def open_links(emulator: str, links: Mapping[str, Any], **options: Any) -> AsyncIterator[Lab]:
    """A server, a device for each of `links` behind a public router without NAT, and the control."""
    every = {**links, BESIDE: None}
    topology: dict[str, Any] = {
        "router": [
            {"name": name, "preset": "datacenter"} for name in ("dc", *(f"r-{each}" for each in every))
        ],
        "device": {
            **{name: {"eth0": {"gateway": "dc"}} for name in ("server", OPPOSITE)},
            **{
                name: {"eth0": {"gateway": f"r-{name}", **({"link": link} if link is not None else {})}}
                for name, link in every.items()
            },
        },
    }
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
    wait: float = DEADLINE,
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


async def expect_round_trip(source: patchbay.Node, target: object, asked: float, count: int = 5) -> None:
    """The way there and back delays by `asked` ms more than the lab's perfect links do."""
    judge, lab = Delay(asked), source.lab

    async def ping_into(times: list[float], node: patchbay.Node, to: object) -> None:
        times += (await ping(node, to, count)).times

    async def sample() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping_into, judge.times, source, target)
            nursery.start_soon(ping_into, judge.control, lab.device(BESIDE), lab.device(OPPOSITE).ip)

    await satisfy(judge, sample, f"from {source.name} to {target}")


# -- datagrams


class Flow:
    """Numbered datagrams from one node to another; what is lost on the way is nobody's secret."""

    def __init__(self, source: patchbay.Node, target: patchbay.Node) -> None:
        self._out = held(source, source.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._in = held(target, target.socket(socket.AF_INET, socket.SOCK_DGRAM))
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

    async def hear(self) -> None:
        """Wait until something has come, and take it."""
        await trio.lowlevel.wait_readable(self._in)
        self.take()

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
            await trio.sleep(pause)  # the distance of bursts
            self.take()
        # What is sent last arrives last. It may be lost too, so it is sent until it is there.
        self._ends += 1
        end = (1 << 31) + self._ends
        while self.arrived.count(end) < ends:
            self.send(end)
            await trio.sleep(0.01)  # the distance of end marks
            self.take()
        return [number for number in self.arrived if number < 1 << 31]


async def expect_lost(
    source: patchbay.Node, target: patchbay.Node, sent: int, probability: float, pause: float = 0.002
) -> None:
    """Of `sent` datagrams as many are lost as asked for, and the others keep their order.

    The sender takes what has come before it goes on, and few are under way at a time, so no buffer of the
    machine overflows and all that is lost is the link's: no noise breaks either bound.
    """
    # Every send succeeds (see Flow.send), whatever becomes of the datagram.
    arrived = await Flow(source, target).send_many(sent, pause=pause)
    least, most = binomial(sent, probability)
    assert least <= sent - len(arrived) <= most, (
        f"{sent - len(arrived)} of {sent} lost, asked for {probability:.2%}"
    )
    assert arrived == sorted(arrived)


class Stamped:
    """Datagrams from one node to another, with the kernel's own times of their leaving and arriving."""

    def __init__(self, source: patchbay.Node, target: patchbay.Node) -> None:
        self._out = held(source, source.socket(socket.AF_INET, socket.SOCK_DGRAM))
        # Each time comes on the error queue with the number of the datagram, counted by the kernel.
        flags = TX_SOFTWARE | REPORT_SOFTWARE | OPT_ID | OPT_TSONLY
        self._out.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, flags)
        self._in = held(target, target.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._in.bind(("0.0.0.0", 0))
        self._in.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._out.setblocking(False)
        self._in.setblocking(False)
        self._to = (str(target.ip), self._in.getsockname()[1])
        self._sent = 0
        self._left: dict[int, int] = {}
        self._came: dict[int, int] = {}

    def send(self) -> None:
        self._out.sendto(self._sent.to_bytes(4, "big"), self._to)
        self._sent += 1

    @property
    def delays(self) -> dict[int, float]:
        """ms from leaving to arriving, by number, of what has arrived."""
        self._take()
        return {number: (self._came[number] - self._left[number]) / 1e6 for number in self._came}

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                _, ancillary, _, _ = self._out.recvmsg(0, 512, socket.MSG_ERRQUEUE)
                found = {(level, kind): data for level, kind, data in ancillary}
                # struct sock_extended_err (ip(7)): the number is in ee_data.
                (number,) = struct.unpack_from("=12xI", found[socket.SOL_IP, IP_RECVERR])
                # Every later veth on the way reports as well, while the packet is still its sender's.
                self._left.setdefault(number, _nanoseconds(found[socket.SOL_SOCKET, SO_TIMESTAMPING]))
        with contextlib.suppress(BlockingIOError):
            while True:
                data, ((_, _, stamp),), _, _ = self._in.recvmsg(4, 64)
                self._came[int.from_bytes(data, "big")] = _nanoseconds(stamp)


def _nanoseconds(timespec: bytes) -> int:
    seconds, nanoseconds = struct.unpack_from("=qq", timespec)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


async def expect_one_way(source: patchbay.Node, target: patchbay.Node, asked: float) -> None:
    """The way from one node to another delays by `asked` ms more than the lab's perfect links do."""
    judge, lab = Delay(asked), source.lab
    flow, control = Stamped(source, target), Stamped(lab.device(BESIDE), lab.device(OPPOSITE))

    async def sample() -> None:
        for _ in range(10):
            flow.send()
            control.send()
            await trio.sleep(0.01)  # the distance of packets
        judge.times, judge.control = [*flow.delays.values()], [*control.delays.values()]

    await satisfy(judge, sample, f"from {source.name} to {target.name}")


async def expect_spread(
    ends: tuple[patchbay.Node, patchbay.Node],
    steady: tuple[patchbay.Node, patchbay.Node],
    low: float,
    high: float,
    samples: int = 200,
) -> None:
    """One-way delays between `ends` are even from `low` to `high` ms; `steady` is a path of one delay."""
    judge, flow, control = Spread(low, high, samples), Stamped(*ends), Stamped(*steady)

    async def sample() -> None:
        for _ in range(50):
            flow.send()
            control.send()
            # Further apart than jitter moves packets, so that keeping their order changes no delay.
            await trio.sleep((high - low) / 1000 + 0.001)  # the distance of packets
        delays, beside = flow.delays, control.delays
        judge.pairs = [(delays[number], beside[number]) for number in delays.keys() & beside.keys()]

    await satisfy(judge, sample, f"from {ends[0].name} to {ends[1].name}")
