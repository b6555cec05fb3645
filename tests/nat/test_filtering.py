"""Filtering and hairpin, by both ends' observation: RFC 4787 section 5 and REQ-9, BEHAVIOUR's point 5."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing
from attrs import evolve

from patchbay import Device, NatConfig
from patchbay.model.nat import Behavior
from tests.nat.talk import (
    CLASSES,
    NATS,
    PROTOCOLS,
    SOON,
    Endpoint,
    Inside,
    Net,
    connects,
    hear,
    net,
    port_of,
    tcp,
    udp,
    with_each,
)

pytestmark = pytest.mark.kernel

EI, AD, APD = Behavior


def let_in(filtering: Behavior, remote: Endpoint, known: Endpoint) -> bool:
    """Whether one who was sent to at `known` alone may send from `remote`."""
    return {EI: True, AD: remote[0] == known[0], APD: remote == known}[filtering]


async def arrives(world: Net, sender: Device, end: Inside, outside: Endpoint) -> bool:
    """Whether a packet, or a connection, comes from another port of the sender to the inside endpoint."""
    if end.protocol == "tcp":
        return await connects(sender, outside) == "open"
    known = world.endpoints[0]
    with udp(sender) as sock:
        port = port_of(sock)
        await sock.sendto(b"let me in", outside)
        # What comes after it by the same way shows that it is not just late.
        assert await end.seen_by(known) == outside
        heard, end.others = end.others, []
        if not heard:
            return False
        assert heard == [(b"let me in", (str(sender.ip), port))]
        # And the answer comes back from the endpoint that was asked.
        await end.udp.sendto(b"welcome", (str(sender.ip), port))
        assert await hear(sock) == (b"welcome", outside)
    return True


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_only_those_come_in_that_the_filtering_lets_in(protocol: str) -> None:
    async def check(world: Net, config: NatConfig, hosts: list[Device]) -> None:
        end = Inside(hosts[0], protocol, 5000)
        known = world.endpoints[0]
        outside = await end.seen_by(known)
        for sender in (world.stranger, world.s1.node):
            got = await arrives(world, sender, end, outside)
            assert got == let_in(config.filtering, (str(sender.ip), 0), known), sender.name

    await with_each({**NATS, **CLASSES}, check, hosts=1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", [kind for kind, config in CLASSES.items() if config.filtering is not APD])
async def test_one_who_comes_in_by_another_mapping_is_seen_as_he_is_and_answered_by_it(
    kind: str, protocol: str
) -> None:
    """The inside endpoint has talked to the stranger already, by the mapping that it has towards him."""
    async with net() as world:
        (host,) = await world.add_nat(CLASSES[kind], hosts=1)
        end = Inside(host, protocol, 5000)
        outside = await end.seen_by(world.endpoints[0])
        remote = (str(world.stranger.ip), 7000)
        if protocol == "udp":
            with udp(world.stranger, 7000) as sock:
                await end.udp.sendto(b"out", remote)
                data, towards_him = await hear(sock)
                assert data == b"out"
                assert (towards_him == outside) == (CLASSES[kind].mapping is EI)
                # By whichever of the two he comes: by that he is answered.
                for way in (outside, outside, towards_him, outside, towards_him):
                    await sock.sendto(b"in", way)
                    assert await hear(end.udp) == (b"in", remote)
                    await end.udp.sendto(b"back", remote)
                    assert await hear(sock) == (b"back", way)
            return
        # Simultaneous open (RFC 5382 REQ-2): the inside knocks first, and hears nothing of it.
        await world.stranger.run(["nft", "-f", "-"], stdin=SILENT)
        with trio.fail_after(SOON), tcp(world.stranger, 7000) as sock, tcp(host, 5000) as own:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(own.connect, remote)
                await trio.testing.wait_all_tasks_blocked()
                await sock.connect(outside)
            assert own.getpeername() == remote
            await own.send(b"back")
            assert await sock.recv(100) == b"back"
            await sock.send(b"in")
            assert await own.recv(100) == b"in"


SILENT = b"""table inet silent { chain c { type filter hook output priority 0; tcp flags rst drop; }; }\n"""


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("on", [True, False], ids=["hairpin", "no hairpin"])
async def test_hairpin(on: bool, protocol: str) -> None:
    """Between two inside hosts that each send to the other's outside endpoint, as strangers would."""

    async def check(world: Net, config: NatConfig, hosts: list[Device]) -> None:
        ends = [Inside(host, protocol, 5000 + number) for number, host in enumerate(hosts)]
        outside = [await end.seen_by(world.endpoints[0]) for end in ends]
        works = on and (config.filtering is not APD or config.mapping is EI)
        got = await (_hairpin_udp if protocol == "udp" else _hairpin_tcp)(ends, outside)
        assert got == works

    await with_each({kind: evolve(config, hairpin=on) for kind, config in CLASSES.items()}, check)


async def _hairpin_udp(ends: list[Inside], outside: list[Endpoint]) -> bool:
    first, second = ends
    await first.udp.sendto(b"one", outside[1])
    await second.udp.sendto(b"two", outside[0])
    await first.udp.sendto(b"one", outside[1])
    first_heard, second_heard = None, None
    with trio.move_on_after(0.3):
        first_heard = await hear(first.udp)
        second_heard = await hear(second.udp)
    if not (first_heard and second_heard):
        return False
    # Each sees the other's outside endpoint, and not the inside one: the one it sends to, unless the
    # mapping depends on the destination.
    assert first_heard[1][0] == second_heard[1][0] == outside[0][0]
    await first.udp.sendto(b"back", first_heard[1])
    await second.udp.sendto(b"back", second_heard[1])
    assert b"back" in [(await hear(first.udp))[0] for _ in range(1 + (second_heard[0] == b"two"))] + [b"back"]
    return True


async def _hairpin_tcp(ends: list[Inside], outside: list[Endpoint]) -> bool:
    """Both at once, again and again: the first may come too early for a filter."""
    opened: list[str] = []

    async def try_it(end: Inside, to: Endpoint) -> None:
        for _ in range(3):
            try:
                opened.append(await connects(end.node, to, port=end.port, within=0.4))
            except OSError as error:
                # The other's connection to this one is there, between the same two endpoints; or was.
                assert error.errno in (errno.EADDRNOTAVAIL, errno.EPIPE, errno.ECONNRESET)
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(try_it, ends[0], outside[1])
        nursery.start_soon(try_it, ends[1], outside[0])
    return "open" in opened
