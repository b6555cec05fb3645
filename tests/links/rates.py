"""How many bytes come through a link, by TCP and by UDP, from the moment when the first is sent."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import trio

import patchbay
from tests.judging import Rate, satisfy
from tests.links.measuring import UDP_SEGMENT, open_links

# An Ethernet frame: what rates are of.
HEADER = 14
TCP_PAYLOAD, TCP_FRAME = 1448, 1514
UDP_PAYLOAD = 1400
UDP_FRAME = UDP_PAYLOAD + 8 + 20 + HEADER
MOST_SEGMENTS = 40

# Until the buffer of a rate is empty and the bucket full: 100 ms or the delay, at the most 0.3 s.
_PAUSE = 0.4
_BURSTS = 0.01  # s between two
_MOST_OFFERED = 400.0  # Mbit/s

Arrived = Callable[[float, int], object]
"""Told the seconds since the first byte was sent, and the bytes of frames that have come."""
Transfer = Callable[[patchbay.Node, patchbay.Node, float, Arrived], Awaitable[None]]


async def expect_rate(
    transfer: Transfer,
    source: patchbay.Node,
    target: patchbay.Node,
    asked: float,
    delay: tuple[float, float] = (0.0, 0.0),
    *,
    at_least: bool = True,
) -> None:
    """Frames pass with `asked` Mbit/s: never more, and with `at_least` as much where the machine keeps up.

    `delay` is the least and the most that the link delays each packet, in s.
    """
    judge = Rate(asked, delay)

    async def sample() -> None:
        with trio.move_on_after(2 * judge.stretch) as attempt:

            def arrived(seconds: float, total: int) -> None:
                judge.arrived(seconds, total)
                if judge.excess() or not judge.lack():
                    attempt.cancel()

            await transfer(source, target, asked * 1.25, arrived)
        if at_least and judge.lack():
            await trio.sleep(_PAUSE)  # what is left of one attempt would take some of the next one's rate

    if not at_least:
        await sample()
        assert not judge.excess(), judge
        return
    await satisfy(judge, sample, f"{transfer.__name__} from {source.name} to {target.name}")


async def tcp(source: patchbay.Node, target: patchbay.Node, _: float, arrived: Arrived) -> None:
    """Send by TCP without end."""
    plain = target.socket()
    plain.bind((str(target.ip), 0))
    plain.listen()
    client = trio.socket.from_stdlib_socket(source.socket())
    with trio.socket.from_stdlib_socket(plain) as listener, client:
        began = trio.current_time()
        await client.connect(listener.getsockname())
        sink, _ = await listener.accept()
        with sink:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send_on, trio.SocketStream(client))
                total = 0
                while data := await sink.recv(1 << 16):
                    total += len(data)
                    arrived(trio.current_time() - began, total * TCP_FRAME // TCP_PAYLOAD)


async def _send_on(stream: trio.SocketStream) -> None:
    while True:
        await stream.send_all(bytes(1 << 16))


async def udp(source: patchbay.Node, target: patchbay.Node, offered: float, arrived: Arrived) -> None:
    """Send `offered` Mbit/s by UDP without end."""
    with (
        source.socket(socket.AF_INET, socket.SOCK_DGRAM) as out,
        target.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
    ):
        sink.bind((str(target.ip), 0))
        sink.setblocking(False)
        out.setsockopt(socket.SOL_UDP, UDP_SEGMENT, UDP_PAYLOAD)
        began, total = trio.current_time(), 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_evenly, out, sink.getsockname(), offered)
            while True:
                await trio.lowlevel.wait_readable(sink)
                total += sum(size - UDP_PAYLOAD + UDP_FRAME for size in _sizes(sink))
                arrived(trio.current_time() - began, total)


def _sizes(sink: socket.socket) -> Iterator[int]:
    """Take what has come."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield len(sink.recv(65535))


async def _send_evenly(out: socket.socket, to: Any, offered: float) -> None:
    """Send many at a time (UDP_SEGMENT, udp(7)): an emulated kernel cannot do a system call for each.

    The buffer is kept filled from the first moment, with what is due in the next two bursts.
    """
    began, sent = trio.current_time() - 2 * _BURSTS, 0
    while True:
        due = int((trio.current_time() - began) * offered * 1e6 / 8 / UDP_FRAME) - sent
        for start in range(0, due, MOST_SEGMENTS):
            with contextlib.suppress(BlockingIOError):
                out.sendto(b"." * (UDP_PAYLOAD * min(MOST_SEGMENTS, due - start)), to)
        sent += due
        await trio.sleep(_BURSTS)  # the distance of bursts


# -- what this machine can do


_unshaped: dict[str, float] = {}


async def scale(emulator: str, *rates: float) -> float:
    """Return by what to multiply `rates` (Mbit/s, 1 at the most) so that all of them at once are judged.

    More than a third of what this machine moves without a rate would judge the machine.
    """
    if emulator not in _unshaped:
        _unshaped[emulator] = await _measure(emulator)
    return min(1.0, _unshaped[emulator] / 3 / sum(rates))


async def _measure(emulator: str) -> float:
    """Return Mbit/s, by the slower of the protocols, of one second through a link that only delays."""
    async with open_links(emulator, {"d": {"latency_ms": 0.1}}) as lab:
        ends = lab.device("d"), lab.device("server")
        return min([await _fastest(tcp, *ends), await _fastest(udp, *ends)])


async def _fastest(transfer: Transfer, source: patchbay.Node, target: patchbay.Node) -> float:
    found: list[float] = []

    def note(seconds: float, total: int) -> None:
        found.append(total * 8e-6 / seconds)

    while not found:
        with trio.move_on_after(1):
            await transfer(source, target, _MOST_OFFERED, note)
    return found[-1]


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
            assert process.stdout
            heard += await process.stdout.receive_some()
        argv = ["iperf3", "-J", "-c", str(server.ip), "-p", str(port), *options]
        done = await source.run(argv, capture_stdout=True, check=False)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert "error" not in answer, answer["error"]
    return answer["end"]  # type: ignore[no-any-return]


async def iperf_rate(
    source: patchbay.Node, server: patchbay.Node, *options: str, seconds: int, port: int
) -> float:
    """Mbit/s of frames that arrive, once the connection is at its speed."""
    end = await iperf(source, server, "-O", "1", "-t", str(seconds), *options, port=port)
    return float(end["sum_received"]["bits_per_second"]) * TCP_FRAME / TCP_PAYLOAD / 1e6
