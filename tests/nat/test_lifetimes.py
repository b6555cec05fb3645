"""How long mappings last, and what ends them."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio

from patchbay import Device, NatConfig, SpecError
from patchbay.model.nat import Behavior
from tests.nat.lasting import SHORT, Renewed, expired, gets_in, is_kept_out, keep, lasts
from tests.nat.talk import (
    Endpoint,
    Inside,
    Net,
    drain,
    has_passed,
    hear,
    net,
    port_of,
    tcp,
    text_of,
    udp,
    with_each,
)
from tests.patience import DEADLINE, await_until

pytestmark = pytest.mark.kernel

EI, AD, APD = Behavior

# Scenarios. Each returns False if the machine was too slow to judge.


async def an_unanswered_mapping_lasts_two_seconds(world: Net, host: Device) -> bool:
    return await lasts(world, host, "udp", partial(send_out, world), 2)


async def send_out(world: Net, end: Inside) -> Renewed:
    """A packet without an answer."""
    with udp(world.s2.node) as sink:
        earliest = trio.current_time()
        await end.udp.sendto(b"out", (str(world.s2.node.ip), port_of(sink)))
        _, outside = await hear(sink)
        return Renewed(outside, earliest, trio.current_time())


async def a_mapping_outlives_its_destination_and_what_goes_out_renews_it(world: Net, host: Device) -> bool:
    end, first, begun = Inside(host, "udp"), world.endpoints[0], trio.current_time()
    outside = await end.seen_by(first)
    with udp(world.s2.node) as sink:

        async def send() -> None:
            await end.udp.sendto(b"out", (str(world.s2.node.ip), port_of(sink)))

        async def check() -> None:
            assert await hear(sink) == (b"out", outside)

        # More than any timeout since it has talked to the first.
        sent = await keep(begun, 4.5, send, check)
    seen = await end.seen_by(first)
    if sent is None or expired(sent):
        return False
    assert seen == outside
    return True


async def what_goes_to_one_does_not_shorten_what_lasts_for_another(world: Net, host: Device) -> bool:
    """A stream's mapping has its longer time, though the last packet was one without an answer."""
    server = world.endpoints[0]

    async def renew(end: Inside) -> Renewed | None:
        begun = trio.current_time()
        outside = await end.seen_by(server)

        async def send() -> None:
            await end.udp.sendto(b"who am I?", server)

        async def check() -> None:
            assert await hear(end.udp) == (text_of(outside), server)

        sent = await keep(begun, 2.6, send, check)  # a stream: answered, and for more than 2 s
        latest = trio.current_time()
        other = await send_out(world, end)
        if sent is None or expired(sent):
            return None
        assert other.outside == outside
        ends = max(latest + SHORT.udp_stream_timeout, other.latest + SHORT.udp_timeout)
        return Renewed(outside, sent, ends - SHORT.udp_stream_timeout)

    return await lasts(world, host, "udp", renew, SHORT.udp_stream_timeout)


async def a_stranger_does_not_keep_a_mapping_by_sending(world: Net, host: Device) -> bool:
    end = Inside(host, "udp")
    with udp(world.stranger) as sock:
        renewed = await send_out(world, end)
        while trio.current_time() < renewed.latest + SHORT.udp_timeout + 0.3:
            await sock.sendto(b"in?", renewed.outside)
            await trio.sleep(0.1)  # the pace of the stranger
        await has_passed(world.stranger, renewed.outside[0])
        assert await drain(end.udp)
        await sock.sendto(b"in?", renewed.outside)
        await has_passed(world.stranger, renewed.outside[0])
        assert await drain(end.udp) == []
    return True


async def a_stream_that_only_comes_in_keeps_a_mapping(world: Net, host: Device) -> bool:
    """As it keeps the connection in conntrack: else another host could be given the port meanwhile."""
    end, server, begun = Inside(host, "udp"), world.endpoints[0], trio.current_time()
    outside = await end.seen_by(server)

    async def send() -> None:
        await world.s1.sockets[server].sendto(b"more", outside)

    async def check() -> None:
        assert await hear(end.udp) == (b"more", server)

    sent = await keep(begun, 5, send, check)
    seen = await end.seen_by(world.endpoints[1])
    if sent is None or expired(sent):
        return False
    assert seen == outside
    return True


async def answering_a_stranger_keeps_a_mapping(world: Net, host: Device) -> bool:
    end, begun = Inside(host, "udp"), trio.current_time()
    outside = await end.seen_by(world.endpoints[0])
    with udp(world.stranger) as sock:

        async def send() -> None:
            await sock.sendto(b"in", outside)

        async def check() -> None:
            data, sender = await hear(end.udp)
            assert data == b"in"
            await end.udp.sendto(b"back", sender)
            assert await hear(sock) == (b"back", outside)

        sent = await keep(begun, 4.5, send, check)  # longer than it lasts towards the server
    seen = await end.seen_by(world.endpoints[1])
    if sent is None or expired(sent):
        return False
    assert seen == outside
    return True


async def an_established_connection_lasts_two_seconds(world: Net, host: Device) -> bool:
    async def renew(end: Inside) -> Renewed:
        earliest = trio.current_time()
        outside = await end.seen_by(world.endpoints[0])
        return Renewed(outside, earliest, trio.current_time())

    return await lasts(world, host, "tcp", renew, 2)


async def a_connection_that_talks_stays(world: Net, host: Device) -> bool:
    with trio.fail_after(DEADLINE), tcp(host) as sock:
        begun = trio.current_time()
        await sock.connect(world.endpoints[0])
        assert await sock.recv(100)

        async def send() -> None:
            await sock.send(b"still there?")

        async def check() -> None:
            assert await sock.recv(100) == b"still there?"

        return await keep(begun, 4.5, send, check) is not None


SCENARIOS = (
    an_unanswered_mapping_lasts_two_seconds,
    a_mapping_outlives_its_destination_and_what_goes_out_renews_it,
    what_goes_to_one_does_not_shorten_what_lasts_for_another,
    a_stranger_does_not_keep_a_mapping_by_sending,
    a_stream_that_only_comes_in_keeps_a_mapping,
    answering_a_stranger_keeps_a_mapping,
    an_established_connection_lasts_two_seconds,
    a_connection_that_talks_stays,
)


async def test_how_long_mappings_last() -> None:
    """All at once, each behind a NAT of its own: most of it is waiting."""

    scenarios = {each.__name__: each for each in SCENARIOS}

    async def check(world: Net, _: NatConfig, hosts: list[Device]) -> None:
        await await_until(
            partial(scenarios[world.kind], world, hosts[0]), "the machine was never quick enough"
        )

    await with_each(dict.fromkeys(scenarios, SHORT), check, hosts=1)


async def test_a_connection_that_has_ended_gives_its_port_back_after_four_minutes() -> None:
    """RFC 5382 REQ-5 has two hours for established connections, four minutes for others. nft tells."""
    async with net() as world:
        (host,) = await world.add_nat("home", hosts=1)

        async def expires() -> int:
            shown = ["nft", "-j", "list", "set", "inet", "nat", "taken_lasting"]
            done = await world.routers[0].run(shown, capture_stdout=True)
            ((one,),) = (each["set"]["elem"] for each in json.loads(done.stdout)["nftables"] if "set" in each)
            return int(one["elem"]["expires"])  # seconds

        with trio.fail_after(DEADLINE):
            with tcp(host, 5000) as sock:
                await sock.connect(world.endpoints[0])
                assert await sock.recv(100)
                assert 7440 - DEADLINE < await expires() <= 7440

            async def is_shortened() -> bool:
                return await expires() <= 240

            await await_until(is_shortened)


@contextlib.asynccontextmanager
async def live(kind: str | NatConfig) -> AsyncIterator[tuple[Net, Inside, Endpoint]]:
    async with net() as world:
        (host,) = await world.add_nat(kind, hosts=1)
        end = Inside(host, "udp", 5000)
        yield world, end, await end.seen_by(world.endpoints[0])


async def test_flushing_forgets_every_mapping() -> None:
    async with live(NatConfig(EI, EI, "random")) as (world, end, outside):
        assert await gets_in(world, end, outside)
        await world.routers[0].flush_nat_state()
        assert await is_kept_out(world, end, outside)
        await world.s1.sockets[world.endpoints[0]].sendto(b"an answer", outside)
        await has_passed(world.s1.node, outside[0])
        assert await is_kept_out(world, end, outside)
        assert end.others == []
        # The host that goes on sending has a mapping again, and another one.
        assert await end.seen_by(world.endpoints[0]) != outside


async def test_flushing_cuts_a_connection_whose_port_is_not_kept() -> None:
    async with net() as world:
        (host,) = await world.add_nat("corporate", hosts=1)
        with trio.fail_after(DEADLINE), tcp(host) as sock:
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
        with trio.fail_after(DEADLINE), tcp(host) as sock:
            await sock.connect(world.endpoints[0])
            assert await sock.recv(100)
            await world.routers[0].flush_nat_state()
            await sock.send(b"still there?")
            assert await sock.recv(100) == b"still there?"


# Each mode after each other one, and after itself.
WALK = (
    *("none", "home", "full-cone", "none", "corporate", "home", "home", "none", "cgnat", "full-cone"),
    *("corporate", "corporate", "full-cone", "full-cone", "cgnat", "cgnat", "home", "corporate"),
    *("cgnat", "none", "none", "full-cone", "home", "cgnat", "corporate", "none"),
)


async def test_another_mode_acts_from_the_next_packet_on() -> None:
    """On public addresses, so that mode "none" talks to servers too."""
    assert len(set(itertools.pairwise(WALK))) == len(set(WALK)) ** 2
    async with net() as world:
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
            opened = mode in ("none", "full-cone", "cgnat")
            assert await (gets_in if opened else is_kept_out)(world, end, seen[0])


async def test_a_mode_that_is_refused_changes_nothing() -> None:
    async with live("home") as (world, end, outside):
        commands = len(world.lab.commands)
        with pytest.raises(SpecError, match="nat: found 'hom'; accepted: 'none', 'home'"):
            await world.routers[0].set_nat_mode("hom")
        assert len(world.lab.commands) == commands
        assert world.routers[0].nat == "home"
        assert await end.seen_by(world.endpoints[0]) == outside
