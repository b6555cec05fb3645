"""NAT below NAT: a home behind a carrier."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
import trio

from patchbay import Device, NatConfig
from patchbay.model.nat import Behavior
from tests.nat.talk import PROTOCOLS, Endpoint, Inside, Net, connect, hear, knock, net, udp
from tests.patience import DEADLINE, await_until

pytestmark = pytest.mark.kernel

EI, AD, APD = Behavior


@contextlib.asynccontextmanager
async def two_homes(
    carrier: str | NatConfig = "cgnat", home: str | NatConfig = "home"
) -> AsyncIterator[tuple[Net, list[Device]]]:
    """Two homes behind one carrier, with the same addresses below each."""
    async with net() as world:
        top = await world.lab.add_router("carrier", nat=carrier)
        world.routers.append(top)
        devices = []
        for name in ("one", "two"):
            below = await world.lab.add_router(name, nat=home, upstream=top, downstream_cidr="192.168.1.0/24")
            devices.append(await world.lab.add_device(f"{name}-pc", uplink=below))
            world.routers.append(below)
        yield world, devices


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_two_homes_on_one_source_port_have_mappings_of_their_own(protocol: str) -> None:
    async with two_homes() as (world, devices):
        assert devices[0].ip == devices[1].ip
        carrier = world.routers[0]
        ends = [Inside(device, protocol, 5000) for device in devices]
        seen: list[set[Endpoint]] = [set(), set()]
        for first, second in ((0, 3), (1, 2), (2, 1), (3, 0)):
            seen[0].add(await ends[0].seen_by(world.endpoints[first]))
            seen[1].add(await ends[1].seen_by(world.endpoints[second]))
        assert [len(each) for each in seen] == [1, 1]
        assert seen[0] != seen[1]
        assert {ip for each in seen for ip, _ in each} == {str(carrier.uplink_ip)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_each_layer_filters_for_itself(protocol: str) -> None:
    """The carrier lets everybody in (EIF), the home only answers."""
    async with two_homes() as (world, (device, _)):
        end = Inside(device, protocol, 5000)
        outside = await end.seen_by(world.endpoints[0])
        if protocol == "tcp":
            assert await knock(world.stranger, outside) == "silence"
        else:
            await udp(world.stranger).sendto(b"let me in", outside)
            await end.seen_by(world.endpoints[0])
            assert end.others == []
        await world.routers[1].set_nat_mode("full-cone")
        outside = await end.seen_by(world.endpoints[1])
        if protocol == "tcp":
            await connect(world.stranger, outside)
        else:
            await udp(world.stranger).sendto(b"let me in", outside)
            assert (await hear(end.udp))[0] == b"let me in"


async def test_a_peer_that_sends_first_changes_no_mapping_of_either_layer() -> None:
    async with two_homes("full-cone") as (world, (device, _)):
        outside = (str(world.routers[0].uplink_ip), 5000)
        await world.s1.sockets[world.endpoints[0]].sendto(b"first", outside)
        assert await Inside(device, "udp", 5000).seen_by(world.endpoints[0]) == outside


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_two_homes_reach_each_other_by_the_carriers_hairpin(protocol: str) -> None:
    async with two_homes(home="full-cone") as (world, devices):
        ends = [Inside(device, protocol, 5000) for device in devices]
        outside = [await end.seen_by(world.endpoints[0]) for end in ends]
        if protocol == "tcp":
            assert ends[0].listener
            await connect(devices[1], outside[0], port=5000)
            with trio.fail_after(DEADLINE):
                accepted, sender = await ends[0].listener.accept()
                accepted.close()
            assert sender == outside[1]
            return
        for _ in range(2):
            await ends[1].udp.sendto(b"hello", outside[0])
            assert await hear(ends[0].udp) == (b"hello", outside[1])
            await ends[0].udp.sendto(b"hello too", outside[1])
            assert await hear(ends[1].udp) == (b"hello too", outside[0])


async def test_the_mapping_of_each_layer_expires_for_itself() -> None:
    short = NatConfig(EI, EI, "random", udp_timeout=1, udp_stream_timeout=2)
    async with two_homes(carrier=short, home=NatConfig(EI, EI, "random")) as (world, (device, _)):
        end = Inside(device, "udp", 5000)
        outside = await end.seen_by(world.endpoints[0])

        async def comes_in_by_another() -> bool:
            await trio.sleep(1.2)  # longer than the carrier remembers
            since = trio.current_time()
            now = await end.seen_by(world.endpoints[0])
            assert now != outside
            with udp(world.stranger) as sock:
                await sock.sendto(b"hello", now)
                if trio.current_time() > since + 1:
                    return False  # the machine was too slow: the carrier may have forgotten this one too
                assert (await hear(end.udp))[0] == b"hello"
            return True

        await await_until(comes_in_by_another)


async def test_errors_and_echoes_come_back_through_both() -> None:
    async with two_homes() as (world, (device, _)):
        server = str(world.s1.node.ip)
        await device.run(["ping", "-c1", "-W60", server], capture_stdout=True)
        with trio.fail_after(DEADLINE), udp(device) as sock:  # nobody is at port 4000: ICMP says so
            await sock.connect((server, 4000))
            with pytest.raises(ConnectionRefusedError):
                while True:
                    await sock.send(b"anybody?")
                    await sock.recv(100)
        done = await device.run(
            ["ping", "-c1", "-t3", "-W60", server], check=False, capture_stdout=True
        )  # the third router says that it ends there
        assert b"Time to live exceeded" in done.stdout
