"""Loss, duplication, reordering and corruption, counted at the far end."""

from __future__ import annotations

import hashlib
import random
import re
import statistics
from pathlib import Path

import pytest
import trio

import patchbay
from tests.judging import Best, Count, binomial, satisfy
from tests.links.measuring import Flow, expect_lost, open_links, ping
from tests.links.rates import iperf_rate

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
    async with open_links(emulator, links) as lab, trio.open_nursery() as nursery:
        server = lab.device("server")

        async def check(percent: int) -> None:
            device = lab.device(f"d{percent}")
            ends = (device, server) if direction == "up" else (server, device)
            await expect_lost(*ends, 4000 if percent == 1 else 1500, percent / 100)
            await expect_lost(*ends[::-1], 300, 0)

        for percent in PERCENTS:
            nursery.start_soon(check, percent)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_packets_that_a_host_sends_as_one_are_lost_singly(emulator: str, direction: str) -> None:
    async with open_links(emulator, {"d": {direction: {"loss_pct": 20}}}) as lab:
        device, server = lab.device("d"), lab.device("server")
        flow = Flow(*((device, server) if direction == "up" else (server, device)))
        for number in range(40):
            flow.send_as_one(range(1000 + number * 40, 1000 + (number + 1) * 40))
            await trio.sleep(0.005)  # the distance of bursts
            flow.take()
        arrived = [number for number in await flow.send_many(0) if number >= 1000]
    assert within(1600 - len(arrived), 1600, 0.2), len(arrived)
    each = [sum(1000 + n * 40 <= number < 1000 + (n + 1) * 40 for number in arrived) for n in range(40)]
    # Of 40 packets all are lost, or none, once in 7,000 times.
    assert sum(count in (0, 40) for count in each) <= 1, each


async def test_pings_are_lost_in_both_directions(emulator: str) -> None:
    links = {f"d{percent}": {"loss_pct": percent} for percent in PERCENTS}
    async with open_links(emulator, links) as lab, trio.open_nursery() as nursery:

        async def check(percent: int) -> None:
            judge = Count((1 - percent / 100) ** 2)

            async def sample() -> None:
                # A reply that is late for ping counts as lost.
                pings = await ping(lab.device(f"d{percent}"), lab.device("server").ip, 500, 0.002, 0.5)
                judge.found.append((pings.sent, len(pings.times)))

            await satisfy(judge, sample, f"{percent} %")

        for percent in PERCENTS:
            nursery.start_soon(check, percent)


async def test_a_link_that_loses_everything_does_not_fail_the_neighbour(emulator: str) -> None:
    async with open_links(emulator, {"d": {"loss_pct": 100}}) as lab:
        device, server = lab.device("d"), lab.device("server").ip
        assert not (await ping(device, server, 3, 0.01, 0.2)).times
        await device.set_link_condition("eth0", {"loss_pct": 0})
        # A neighbour that has failed would be asked for first, and lose the packets that wait for it.
        assert (await ping(device, server, 3, 0.01)).order[:1] == [1]


async def test_packets_are_duplicated_as_often_as_asked_for(emulator: str) -> None:
    async with open_links(emulator, {"d": {"up": {"duplicate_pct": 20}}}) as lab:
        arrived = await Flow(lab.device("d"), lab.device("server")).send_many(1500)
    assert set(arrived) == set(range(1500))
    assert within(len(arrived) - 1500, 1500, 0.2), len(arrived)


async def test_only_packets_that_shall_overtake_do(emulator: str) -> None:
    """A sender that is held up for the delay leaves a packet nobody to overtake."""
    judge, sent = Count(0.2), 2000
    async with open_links(emulator, {"d": {"latency_ms": 20, "up": {"reorder_pct": 20}}}) as lab:

        async def sample() -> None:
            flow = Flow(lab.device("d"), lab.device("server"))
            arrived = await flow.send_many(sent, burst=1, pause=0.001, ends=8)
            assert sorted(arrived) == list(range(sent))
            overtaking = [
                n for place, n in enumerate(arrived) if any(m < n for m in arrived[place + 1 : place + 200])
            ]
            judge.found.append((sent, len(overtaking)))

        await satisfy(judge, sample)


async def test_corrupt_packets_have_a_wrong_checksum(emulator: str, tmp_path: Path) -> None:
    async with open_links(emulator, {"d": {"up": {"corrupt_pct": 30}}}) as lab:
        server = lab.device("server")
        arrived = await Flow(lab.device("d"), server).send_many(1000)
        # A bit of any header may be hit as well as one of the datagram: either way it does not arrive.
        assert within(1000 - len(arrived), 1000, 0.3), len(arrived)
        # nstat(8) keeps a history in /tmp, and refuses one that belongs to somebody else.
        env = {"NSTAT_HISTORY": str(tmp_path / "nstat")}
        said = await server.run(["nstat", "-az", "UdpInCsumErrors"], env=env, capture_stdout=True)
    errors = re.search(r"UdpInCsumErrors\s+(\d+)", said.stdout.decode())
    assert errors
    assert int(errors[1]) > 100


async def test_tcp_brings_its_data_whole_through_everything_at_once(emulator: str) -> None:
    wild = {
        **{"latency_ms": 5, "jitter_ms": 3, "loss_pct": 1, "duplicate_pct": 1, "reorder_pct": 1},
        **{"corrupt_pct": 1, "rate_kbit": 40_000},
    }
    data = random.Random(1).randbytes(1_500_000)
    async with open_links(emulator, {"d": wild}) as lab, trio.open_nursery() as nursery:
        device, server = lab.device("d"), lab.device("server")
        for source, target in ((device, server), (server, device)):
            nursery.start_soon(expect_whole, source, target, data)


async def expect_whole(source: patchbay.Node, target: patchbay.Node, data: bytes) -> None:
    with target.enter():
        (listener,) = await trio.open_tcp_listeners(0, host=str(target.ip))
    with source.enter():
        sender = await trio.open_tcp_stream(str(target.ip), listener.socket.getsockname()[1])
    receiver = await listener.accept()
    async with listener, sender, receiver, trio.open_nursery() as nursery:

        async def send() -> None:
            await sender.send_all(data)
            await sender.send_eof()

        nursery.start_soon(send)
        digest = hashlib.sha256()
        async for piece in receiver:
            digest.update(piece)
    assert digest.digest() == hashlib.sha256(data).digest()


@pytest.mark.measures
async def test_tcp_through_loss_is_as_fast_as_mathis_says(emulator: str) -> None:
    """Mathis, Semke, Mahdavi, Ott (1997): MSS / RTT * sqrt(3/2) / sqrt(p). The mean of four connections."""
    mathis = 1448 * 8 / 0.05 * (1.5**0.5) / (0.02**0.5) / 1e6
    # What is slower is judged as what takes longer: ms for a megabit.
    judge = Best(floor=1000 / (2 * mathis), ceiling=1000 / (0.5 * mathis), unit="ms/Mbit")
    links = {f"d{number}": {"latency_ms": 25, "up": {"loss_pct": 2}} for number in range(4)}
    async with open_links(emulator, links) as lab:

        async def sample() -> None:
            found: list[float] = []

            async def measure(number: int) -> None:
                ends = (lab.device(f"d{number}"), lab.device("server"))
                found.append(await iperf_rate(*ends, "-C", "reno", seconds=4, port=5201 + number))

            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(measure, number)
            judge.values.append(1000 / statistics.fmean(found))

        await satisfy(judge, sample)
