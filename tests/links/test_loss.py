"""Loss, duplication, reordering and corruption, counted at the far end."""

from __future__ import annotations

import hashlib
import random
import re

import pytest
import trio

import patchbay
from tests.links.measuring import Flow, binomial, open_links, ping, tcp_rate

pytestmark = pytest.mark.kernel

PERCENTS = (1, 10, 50)


def within(found: int, sent: int, probability: float) -> bool:
    least, most = binomial(sent, probability)
    return least <= found <= most


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_udp_is_lost_as_often_as_asked_for_and_the_sender_does_not_hear_of_it(
    emulator: str, direction: str
) -> None:
    links = {f"d{percent}": {direction: {"loss_pct": percent}} for percent in PERCENTS}
    async with open_links(emulator, links) as lab:
        server = lab.device("server")
        for percent in PERCENTS:
            device = lab.device(f"d{percent}")
            ends = (device, server) if direction == "up" else (server, device)
            sent = 4000 if percent == 1 else 1500
            # Every send succeeds (see Flow.send), whatever becomes of the datagram.
            arrived = await Flow(*ends).send_many(sent)
            assert within(sent - len(arrived), sent, percent / 100), (percent, len(arrived))
            assert arrived == sorted(arrived)
            # The other direction loses nothing.
            assert len(await Flow(*reversed(ends)).send_many(300)) == 300


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_packets_that_a_host_sends_as_one_are_lost_singly(emulator: str, direction: str) -> None:
    async with open_links(emulator, {"d": {direction: {"loss_pct": 20}}}) as lab:
        device, server = lab.device("d"), lab.device("server")
        flow = Flow(*((device, server) if direction == "up" else (server, device)))
        for number in range(40):
            flow.send_as_one(range(1000 + number * 40, 1000 + (number + 1) * 40))
            await trio.sleep(0.005)
            flow.take()
        arrived = [number for number in await flow.send_many(0) if number >= 1000]
    assert within(1600 - len(arrived), 1600, 0.2), len(arrived)
    each = [sum(1000 + n * 40 <= number < 1000 + (n + 1) * 40 for number in arrived) for n in range(40)]
    # Of 40 packets all are lost, or none, once in 7,000 times.
    assert sum(count in (0, 40) for count in each) <= 1, each


async def test_pings_are_lost_in_both_directions(emulator: str) -> None:
    async with open_links(emulator, {f"d{percent}": {"loss_pct": percent} for percent in PERCENTS}) as lab:
        for percent in PERCENTS:
            pings = await ping(lab.device(f"d{percent}"), lab.device("server").ip, 500, 0.002, 0.5)
            assert within(len(pings.times), pings.sent, (1 - percent / 100) ** 2), (percent, len(pings.times))


async def test_a_link_that_loses_everything_does_not_fail_the_neighbour(emulator: str) -> None:
    async with open_links(emulator, {"d": {"loss_pct": 100}}) as lab:
        device, server = lab.device("d"), lab.device("server").ip
        assert not (await ping(device, server, 3, 0.01, 0.2)).times
        await device.set_link_condition("eth0", {"loss_pct": 0})
        assert len((await ping(device, server, 3, 0.01)).times) == 3


async def test_packets_are_duplicated_as_often_as_asked_for(emulator: str) -> None:
    async with open_links(emulator, {"d": {"up": {"duplicate_pct": 20}}}) as lab:
        arrived = await Flow(lab.device("d"), lab.device("server")).send_many(1500)
    assert set(arrived) == set(range(1500))
    assert within(len(arrived) - 1500, 1500, 0.2), len(arrived)


async def test_only_packets_that_shall_overtake_do(emulator: str) -> None:
    async with open_links(emulator, {"d": {"latency_ms": 20, "up": {"reorder_pct": 10}}}) as lab:
        arrived = await Flow(lab.device("d"), lab.device("server")).send_many(
            2000, burst=1, pause=0.001, ends=8
        )
    assert sorted(arrived) == list(range(2000))
    overtaking = [
        n for place, n in enumerate(arrived) if any(m < n for m in arrived[place + 1 : place + 200])
    ]
    # Those sent in the last 20 ms have nobody left to overtake.
    assert within(len(overtaking), 2000, 0.1), len(overtaking)
    slow = [number for number in arrived if number not in set(overtaking)]
    assert slow == sorted(slow)


async def test_corrupt_packets_are_told_by_their_checksum(emulator: str) -> None:
    async with open_links(emulator, {"d": {"up": {"corrupt_pct": 30}}}) as lab:
        server = lab.device("server")
        arrived = await Flow(lab.device("d"), server).send_many(1000)
        # A bit of any header may be hit as well as one of the datagram: either way it does not arrive.
        assert within(1000 - len(arrived), 1000, 0.3), len(arrived)
        said = await server.run(["nstat", "-az", "UdpInCsumErrors"], capture_stdout=True)
    errors = re.search(r"UdpInCsumErrors\s+(\d+)", said.stdout.decode())
    assert errors
    assert int(errors[1]) > 100


def _send(host: str, port: int, seed: int, size: int) -> None:
    import socket

    with socket.create_connection((host, port), 60) as sock:
        sock.sendall(random.Random(seed).randbytes(size))


def _serve(port: int, size: int) -> str:
    import socket

    with socket.create_server(("", port)) as server:
        server.settimeout(60)
        connection, _ = server.accept()
        digest, taken = hashlib.sha256(), 0
        with connection:
            while data := connection.recv(65536):
                digest.update(data)
                taken += len(data)
    assert taken == size
    return digest.hexdigest()


async def test_tcp_brings_its_data_whole_through_everything_at_once(emulator: str) -> None:
    wild = {
        **{"latency_ms": 5, "jitter_ms": 3, "loss_pct": 1, "duplicate_pct": 1, "reorder_pct": 1},
        **{"corrupt_pct": 1, "rate_kbit": 40_000},
    }
    size = 1_500_000
    async with open_links(emulator, {"d": wild}) as lab:
        device, server = lab.device("d"), lab.device("server")
        for source, target, port in ((device, server, 9001), (server, device, 9002)):
            digest = await _carried(source, target, port, size)
            assert digest == hashlib.sha256(random.Random(port).randbytes(size)).hexdigest()


async def _carried(source: patchbay.Node, target: patchbay.Node, port: int, size: int) -> str:
    """The digest of what arrived."""
    found: list[str] = []

    async def serve() -> None:
        found.append(await target.call(_serve, port, size))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await _until_listening(target, port)
        await source.call(_send, str(target.ip), port, port, size)
    return found[0]


async def _until_listening(node: patchbay.Node, port: int) -> None:
    while True:
        said = await node.run(["ss", "-Hltn", f"sport = :{port}"], capture_stdout=True)
        if said.stdout:
            return


async def test_tcp_through_loss_is_as_fast_as_mathis_says(emulator: str) -> None:
    """Mathis, Semke, Mahdavi, Ott (1997): MSS / RTT * sqrt(3/2) / sqrt(p)."""
    mathis = 1448 * 8 / 0.05 * (1.5**0.5) / (0.02**0.5) / 1e6
    async with open_links(emulator, {"d": {"latency_ms": 25, "up": {"loss_pct": 2}}}) as lab:
        found = await tcp_rate(lab.device("d"), lab.device("server"), "-C", "reno", seconds=12)
    assert 0.5 * mathis <= found <= 2 * mathis, (found, mathis)
