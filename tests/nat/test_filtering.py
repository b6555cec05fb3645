"""Filtering and hairpin, observed at both ends: RFC 4787 section 5 and REQ-9."""

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
    Endpoint,
    Inside,
    Net,
    connect,
    drain,
    has_passed,
    hear,
    knock,
    net,
    port_of,
    tcp,
    udp,
    with_each,
)
from tests.patience import DEADLINE

pytestmark = pytest.mark.kernel

EI, AD, APD = Behavior


def let_in(filtering: Behavior, remote: Endpoint, known: Endpoint) -> bool:
    """Whether one who was sent to at `known` alone may send from `remote`."""
    return {EI: True, AD: remote[0] == known[0], APD: remote == known}[filtering]


async def comes_in(sender: Device, end: Inside, outside: Endpoint) -> None:
    """A packet, or a connection, comes from another port of the sender to the inside endpoint."""
    if end.protocol == "tcp":
        await connect(sender, outside)
        return
    with udp(sender) as sock:
        source = (str(sender.ip), port_of(sock))
        await sock.sendto(b"let me in", outside)
        assert await hear(end.udp) == (b"let me in", source)
        # And the answer comes back from the endpoint that was asked.
        await end.udp.sendto(b"welcome", source)
        assert await hear(sock) == (b"welcome", outside)


async def stays_out(sender: Device, end: Inside, outside: Endpoint) -> None:
    if end.protocol == "tcp":
        assert await knock(sender, outside) == "silence", sender.name
        return
    with udp(sender) as sock:
        await sock.sendto(b"let me in", outside)
        await has_passed(sender, outside[0])
        assert await drain(end.udp) == [], sender.name


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_only_those_come_in_that_the_filtering_lets_in(protocol: str) -> None:
    async def check(world: Net, config: NatConfig, hosts: list[Device]) -> None:
        end = Inside(hosts[0], protocol, 5000)
        known = world.endpoints[0]
        outside = await end.seen_by(known)
        for sender in (world.stranger, world.s1.node):
            passes = let_in(config.filtering, (str(sender.ip), 0), known)
            await (comes_in if passes else stays_out)(sender, end, outside)

    await with_each({**NATS, **CLASSES}, check, hosts=1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", [kind for kind, config in CLASSES.items() if config.filtering is not APD])
async def test_a_peer_that_comes_in_by_another_mapping_keeps_its_address_and_is_answered_by_it(
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
        with trio.fail_after(DEADLINE), tcp(world.stranger, 7000) as sock, tcp(host, 5000) as own:
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
        meet, do_not_meet = (
            (_meet_by_udp, _miss_by_udp) if protocol == "udp" else (_meet_by_tcp, _miss_by_tcp)
        )
        await (meet if works else do_not_meet)(ends, outside)

    await with_each({kind: evolve(config, hairpin=on) for kind, config in CLASSES.items()}, check)


async def _send_to_each_other(ends: list[Inside], outside: list[Endpoint]) -> None:
    """The first sends twice, because its first packet may come too early for a filter."""
    first, second = ends
    await first.udp.sendto(b"one", outside[1])
    await second.udp.sendto(b"two", outside[0])
    await first.udp.sendto(b"one", outside[1])


async def _meet_by_udp(ends: list[Inside], outside: list[Endpoint]) -> None:
    await _send_to_each_other(ends, outside)
    first, second = (end.udp for end in ends)
    two, one = await hear(first), await hear(second)
    assert (two[0], one[0]) == (b"two", b"one")
    # Each sees the other's outside endpoint, and not the inside one: the one it sends to, unless the
    # mapping depends on the destination.
    assert one[1][0] == two[1][0] == outside[0][0]
    # An answer comes from the endpoint that was asked.
    await first.sendto(b"back", two[1])
    await second.sendto(b"back", one[1])
    assert await hear(first) == (b"back", outside[1])
    heard = [await hear(second)]
    if heard == [one]:  # its second packet
        heard = [await hear(second)]
    assert heard == [(b"back", outside[0])]


async def _miss_by_udp(ends: list[Inside], outside: list[Endpoint]) -> None:
    await _send_to_each_other(ends, outside)
    for end in ends:
        await has_passed(end.node, outside[0][0])
    assert [await drain(end.udp) for end in ends] == [[], []]


async def _meet_by_tcp(ends: list[Inside], outside: list[Endpoint]) -> None:
    """Both at once; one connection is enough. The kernel repeats a SYN that came too early for a filter."""

    async def try_it(end: Inside, to: Endpoint, nursery: trio.Nursery) -> None:
        try:
            await connect(end.node, to, port=end.port)
        except OSError as error:
            # The other's connection to this one is there, between the same two endpoints; or was.
            assert error.errno in (errno.EADDRNOTAVAIL, errno.EPIPE, errno.ECONNRESET)
        else:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(try_it, ends[0], outside[1], nursery)
        nursery.start_soon(try_it, ends[1], outside[0], nursery)
    assert nursery.cancel_scope.cancel_called, "neither is open"


async def _miss_by_tcp(ends: list[Inside], outside: list[Endpoint]) -> None:
    met: list[str] = []

    async def try_it(end: Inside, to: Endpoint) -> None:
        met.append(await knock(end.node, to, port=end.port))

    for _ in range(2):  # the first may come too early for a filter
        async with trio.open_nursery() as nursery:
            nursery.start_soon(try_it, ends[0], outside[1])
            nursery.start_soon(try_it, ends[1], outside[0])
    assert met == ["silence"] * 4
