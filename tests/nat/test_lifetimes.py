"""How long mappings last, and what ends them: BEHAVIOUR's points 3 and 6."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio

from patchbay import Device, NatConfig, SpecError
from patchbay.model.nat import Behavior
from tests.nat.talk import SOON, Endpoint, Inside, Net, connects, hear, net, port_of, tcp, udp, with_each

pytestmark = pytest.mark.kernel

EI, AD, APD = Behavior

# Random, so that a mapping that is made anew is seen to be another (but for one time in 64,512).
SHORT = NatConfig(EI, EI, "random", udp_timeout=2, udp_stream_timeout=4, tcp_established_timeout=2)


async def closes(open_now: Callable[[], Awaitable[bool]], within: float) -> float:
    """When a way in was last found open, in seconds from now."""
    begun, last = trio.current_time(), 0.0
    with trio.fail_after(within):
        while await open_now():
            last = trio.current_time() - begun
            await trio.sleep(0.1)  # how often is asked
    return last


def strangers_way(world: Net, end: Inside, outside: Endpoint) -> Callable[[], Awaitable[bool]]:
    """Whether a stranger, another one each time, gets in. What he sends renews nothing."""

    async def gets_in() -> bool:
        if end.protocol == "tcp":
            return await connects(world.stranger, outside, within=0.25) == "open"
        with udp(world.stranger) as sock:
            await sock.sendto(b"in?", outside)
            with trio.move_on_after(0.15):
                assert (await hear(end.udp))[0] == b"in?"
                return True
        return False

    return gets_in


async def an_unanswered_mapping_of_two_seconds_closes_after_two_to_four(world: Net, host: Device) -> None:
    end = Inside(host, "udp")
    with udp(world.s2.node) as sink:
        await end.udp.sendto(b"out", (str(world.s2.node.ip), port_of(sink)))
        _, outside = await hear(sink)
        last = await closes(strangers_way(world, end, outside), within=8)
    assert 1.5 <= last <= 4
    assert await end.seen_by(world.endpoints[0]) != outside  # and the next one is another


async def a_mapping_outlives_its_destination_and_what_goes_out_renews_it(world: Net, host: Device) -> None:
    end = Inside(host, "udp")
    first = world.endpoints[0]
    outside = await end.seen_by(first)
    with udp(world.s2.node) as sink:
        second = (str(world.s2.node.ip), port_of(sink))
        begun = trio.current_time()
        while trio.current_time() - begun < 5:  # more than any timeout since it has talked to the first
            await end.udp.sendto(b"out", second)
            assert await hear(sink) == (b"out", outside)
            await trio.sleep(0.5)  # the pace of the sender
    assert await end.seen_by(first) == outside


async def what_goes_to_one_does_not_shorten_what_lasts_for_another(world: Net, host: Device) -> None:
    """A stream's mapping has its longer time, though the last packet was one without an answer."""
    end = Inside(host, "udp")
    outside, begun = await end.seen_by(world.endpoints[0]), trio.current_time()
    while trio.current_time() - begun < 2.6:  # a stream: answered, and for more than 2 s
        assert await end.seen_by(world.endpoints[0]) == outside
        await trio.sleep(0.2)
    with udp(world.s2.node) as sink:
        await end.udp.sendto(b"out", (str(world.s2.node.ip), port_of(sink)))
        assert await hear(sink) == (b"out", outside)
    last = await closes(strangers_way(world, end, outside), within=10)
    assert 3 <= last <= 6


async def a_stranger_does_not_keep_a_mapping_by_sending(world: Net, host: Device) -> None:
    end = Inside(host, "udp")
    with udp(world.s2.node) as sink, udp(world.stranger) as sock:
        await end.udp.sendto(b"out", (str(world.s2.node.ip), port_of(sink)))
        _, outside = await hear(sink)

        async def gets_in() -> bool:
            await sock.sendto(b"in?", outside)
            with trio.move_on_after(0.15):
                return (await hear(end.udp))[0] == b"in?"
            return False

        assert 1.5 <= await closes(gets_in, within=8) <= 4


async def a_stream_that_only_comes_in_keeps_a_mapping(world: Net, host: Device) -> None:
    """As it keeps the connection in conntrack: else another host could be given the port meanwhile."""
    end = Inside(host, "udp")
    server = world.endpoints[0]
    outside, begun = await end.seen_by(server), trio.current_time()
    while trio.current_time() - begun < 7:
        await world.s1.sockets[server].sendto(b"more", outside)
        assert await hear(end.udp) == (b"more", server)
        await trio.sleep(0.5)  # the pace of the sender
    assert await end.seen_by(world.endpoints[1]) == outside


async def answering_a_stranger_keeps_a_mapping(world: Net, host: Device) -> None:
    end = Inside(host, "udp")
    outside = await end.seen_by(world.endpoints[0])
    with udp(world.stranger) as sock:
        begun = trio.current_time()
        while trio.current_time() - begun < 5:  # longer than it has lasted towards the server
            await sock.sendto(b"in", outside)
            data, sender = await hear(end.udp)
            assert data == b"in"
            await end.udp.sendto(b"back", sender)
            assert await hear(sock) == (b"back", outside)
            await trio.sleep(0.5)  # the pace of the sender
    assert await end.seen_by(world.endpoints[1]) == outside


async def an_established_connection_of_two_seconds_closes_after_two_to_four(world: Net, host: Device) -> None:
    end = Inside(host, "tcp")
    outside = await end.seen_by(world.endpoints[0])
    assert 1.5 <= await closes(strangers_way(world, end, outside), within=8) <= 4.2


async def a_connection_that_talks_stays(world: Net, host: Device) -> None:
    with trio.fail_after(20), tcp(host) as sock:
        await sock.connect(world.endpoints[0])
        greeting = await sock.recv(100)
        begun = trio.current_time()
        while trio.current_time() - begun < 5:
            await sock.send(b"still there?")
            assert await sock.recv(100) == b"still there?"
            await trio.sleep(0.5)  # the pace of the sender
    assert greeting


SCENARIOS = (
    an_unanswered_mapping_of_two_seconds_closes_after_two_to_four,
    a_mapping_outlives_its_destination_and_what_goes_out_renews_it,
    what_goes_to_one_does_not_shorten_what_lasts_for_another,
    a_stranger_does_not_keep_a_mapping_by_sending,
    a_stream_that_only_comes_in_keeps_a_mapping,
    answering_a_stranger_keeps_a_mapping,
    an_established_connection_of_two_seconds_closes_after_two_to_four,
    a_connection_that_talks_stays,
)


async def test_how_long_mappings_last() -> None:
    """All at once, each behind a NAT of its own: most of it is waiting."""

    scenarios = {each.__name__: each for each in SCENARIOS}

    async def check(world: Net, _: NatConfig, hosts: list[Device]) -> None:
        await scenarios[world.kind](world, hosts[0])

    await with_each(dict.fromkeys(scenarios, SHORT), check, hosts=1)


async def test_a_connection_that_has_ended_gives_its_port_back_after_four_minutes() -> None:
    """RFC 5382 REQ-5 has two hours for established connections, four minutes for others. nft tells."""
    async with net() as world:
        (host,) = await world.add_nat("home", hosts=1)

        async def lasts() -> int:
            shown = ["nft", "-j", "list", "set", "inet", "nat", "taken_lasting"]
            done = await world.routers[0].run(shown, capture_stdout=True)
            ((one,),) = (each["set"]["elem"] for each in json.loads(done.stdout)["nftables"] if "set" in each)
            return int(one["elem"]["expires"])  # seconds

        with trio.fail_after(SOON):
            with tcp(host, 5000) as sock:
                await sock.connect(world.endpoints[0])
                assert await sock.recv(100)
                assert 7400 < await lasts() <= 7440
            while await lasts() > 240:
                await trio.sleep(0.02)


@contextlib.asynccontextmanager
async def live(kind: str | NatConfig) -> AsyncIterator[tuple[Net, Inside, Endpoint]]:
    async with net() as world:
        (host,) = await world.add_nat(kind, hosts=1)
        end = Inside(host, "udp", 5000)
        yield world, end, await end.seen_by(world.endpoints[0])


async def test_flushing_forgets_every_mapping() -> None:
    async with live(NatConfig(EI, EI, "random")) as (world, end, outside):
        gets_in = strangers_way(world, end, outside)
        assert await gets_in()
        await world.routers[0].flush_nat_state()
        assert not await gets_in()
        await world.s1.sockets[world.endpoints[0]].sendto(b"an answer", outside)
        assert not await gets_in()
        assert end.others == []
        # The host that goes on sending has a mapping again, and another one.
        assert await end.seen_by(world.endpoints[0]) != outside


async def test_flushing_cuts_a_connection_whose_port_is_not_kept() -> None:
    async with net() as world:
        (host,) = await world.add_nat("corporate", hosts=1)
        with trio.fail_after(SOON), tcp(host) as sock:
            await sock.connect(world.endpoints[0])
            assert await sock.recv(100)
            await world.routers[0].flush_nat_state()
            # It comes from another port now: the server does not know it, and says so.
            await sock.send(b"still there?")
            with pytest.raises(ConnectionResetError):
                await sock.recv(100)


async def test_a_connection_through_a_home_router_survives_its_reboot_as_the_port_is_kept() -> None:
    async with net() as world:
        (host,) = await world.add_nat("home", hosts=1)
        with trio.fail_after(SOON), tcp(host) as sock:
            await sock.connect(world.endpoints[0])
            assert await sock.recv(100)
            await world.routers[0].flush_nat_state()
            await sock.send(b"still there?")
            assert await sock.recv(100) == b"still there?"


# Each mode after each other one, and after itself.
WALK = ("none", "home", "full-cone", "none", "corporate", "home", "home", "none", "cgnat", "full-cone")
WALK += ("corporate", "corporate", "full-cone", "full-cone", "cgnat", "cgnat", "home", "corporate")
WALK += ("cgnat", "none", "none", "full-cone", "home", "cgnat", "corporate", "none")


async def test_another_mode_acts_from_the_next_packet_on() -> None:
    """On public addresses, so that mode "none" talks to servers too."""
    assert len(set(itertools.pairwise(WALK))) == len(set(WALK)) ** 2
    async with net(120) as world:
        router = await world.lab.add_router("r")  # public addresses below
        host = await world.lab.add_device("h", uplink=router)
        end = Inside(host, "udp", 5000)
        own, outside = (str(host.ip), 5000), str(router.uplink_ip)
        for mode in WALK:
            await router.set_nat_mode(mode)
            assert router.nat == mode
            seen = [await end.seen_by(server) for server in world.endpoints]
            end.others.clear()
            if mode == "none":
                assert set(seen) == {own}
            else:
                assert {host for host, _ in seen} == {outside}
                assert len(set(seen)) == (4 if mode == "corporate" else 1)
                assert (seen[0][1] == 5000) == (mode in ("home", "full-cone"))
            assert await strangers_way(world, end, seen[0])() == (mode in ("none", "full-cone", "cgnat"))


async def test_a_mode_that_is_refused_changes_nothing() -> None:
    async with live("home") as (world, end, outside):
        commands = len(world.lab.commands)
        with pytest.raises(SpecError, match="nat: found 'hom'; accepted: 'none', 'home'"):
            await world.routers[0].set_nat_mode("hom")
        assert len(world.lab.commands) == commands
        assert world.routers[0].nat == "home"
        assert await end.seen_by(world.endpoints[0]) == outside
