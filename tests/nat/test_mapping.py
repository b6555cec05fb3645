"""Mapping, observed at both ends: RFC 4787 section 4."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

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
    ping,
    udp,
    with_each,
)

pytestmark = pytest.mark.kernel

EI, AD, APD = Behavior


def expected_groups(mapping: Behavior, endpoints: list[Endpoint]) -> list[set[Endpoint]]:
    """The remote endpoints towards which one inside endpoint has one and the same mapping."""
    keys: dict[Behavior, Callable[[Endpoint], object]] = {
        EI: lambda _: None,
        AD: lambda it: it[0],
        APD: lambda it: it,
    }
    by = keys[mapping]
    groups: dict[object, set[Endpoint]] = {}
    for endpoint in endpoints:
        groups.setdefault(by(endpoint), set()).add(endpoint)
    return sorted(groups.values(), key=sorted)


def groups_of(seen: dict[Endpoint, Endpoint]) -> list[set[Endpoint]]:
    groups: dict[Endpoint, set[Endpoint]] = {}
    for remote, outside in seen.items():
        groups.setdefault(outside, set()).add(remote)
    return sorted(groups.values(), key=sorted)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_two_hosts_on_one_source_port_have_mappings_of_their_own(protocol: str) -> None:
    async def check(world: Net, config: NatConfig, hosts: list[Device]) -> None:
        ends = [Inside(host, protocol, 5000) for host in hosts]
        seen: list[dict[Endpoint, Endpoint]] = [{}, {}]
        # Each begins with servers that the other has not talked to yet: conntrack alone would give both
        # the same outside port, and change one when they meet.
        for order in ((0, 3), (1, 2), (2, 1), (3, 0)):
            for number, place in enumerate(order):
                server = world.endpoints[place]
                seen[number][server] = await ends[number].seen_by(server)
        first, second = (set(each.values()) for each in seen)
        assert not first & second
        for each in seen:
            assert groups_of(each) == expected_groups(config.mapping, world.endpoints)
        for number, end in enumerate(ends):  # and it stays so
            for server in world.endpoints if protocol == "udp" else ():
                assert await end.seen_by(server) == seen[number][server]

    await with_each({**NATS, **CLASSES}, check)


PRESERVING = {
    kind: config for kind, config in {**NATS, **CLASSES}.items() if config.port_allocation.kind == "preserve"
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_port_is_kept_where_it_is_free_and_a_peer_that_sends_first_does_not_change_that(
    protocol: str,
) -> None:
    async def check(world: Net, _: NatConfig, hosts: list[Device]) -> None:
        outside = (str(world.routers[0].uplink_ip), 5000)
        if protocol == "udp":
            for sock in (*world.s1.sockets.values(), *world.s2.sockets.values()):
                await sock.sendto(b"first", outside)
            for server in (world.s1, world.s2):
                await has_passed(server.node, outside[0])
        else:
            assert await knock(world.s1.node, outside) == "silence"
        end = Inside(hosts[0], protocol, 5000)
        assert await end.seen_by(world.endpoints[0]) == outside
        assert end.others == []

    await with_each(PRESERVING, check, hosts=1)


async def test_sequential_ports_go_up_by_one() -> None:
    async with net() as world:
        (host,) = await world.add_nat("symmetric-predictable", hosts=1)
        end = Inside(host, "udp")
        ports = [(await end.seen_by(server))[1] for server in world.endpoints]
        assert ports == [ports[0] + each for each in range(4)]


async def test_random_ports_are_neither_the_inside_ones_nor_in_a_row() -> None:
    async with net() as world:
        (host,) = await world.add_nat("corporate", hosts=1)
        ends = [Inside(host, "udp", port) for port in range(5000, 5030)]
        ports = [(await end.seen_by(world.endpoints[0]))[1] for end in ends]
        assert len(set(ports)) == 30
        assert all(1024 <= port <= 65535 for port in ports)
        steps = [after - before for before, after in itertools.pairwise(ports)]
        assert len(set(steps)) > 20
        # Thirty ports, evenly spread over 64512: fewer than three in either half is one in a million.
        assert 3 < sum(port < 33280 for port in ports) < 27
        assert sum(end.port == port for end, port in zip(ends, ports, strict=True)) < 3


async def test_a_protocol_that_does_not_follow_the_nat_is_translated_as_it_comes() -> None:
    config = NatConfig(EI, EI, "sequential", protocols=("udp",))
    async with net() as world:
        (host,) = await world.add_nat(config, hosts=1)
        end = Inside(host, "tcp", 5000)
        mapped = await end.seen_by(world.endpoints[0])
        assert mapped == (str(world.routers[0].uplink_ip), 5000)
        assert await knock(world.stranger, mapped) == "silence"
        other = Inside(host, "udp", 5000)
        mapped = await other.seen_by(world.endpoints[0])
        assert mapped[1] == 1024
        await udp(world.stranger).sendto(b"hello", mapped)
        assert (await hear(other.udp))[0] == b"hello"


async def test_the_outside_address_answers_nothing_but_ping() -> None:
    await with_each(NATS, answers_nothing_but_ping, hosts=1)


async def answers_nothing_but_ping(world: Net, _: NatConfig, hosts: list[Device]) -> None:
    router = world.routers[0]
    outside = str(router.uplink_ip)
    dns, _ssh = udp(router, 53), Inside(router, "tcp", 22)
    for node in (world.stranger, *hosts):
        # What is refused is an ICMP error, which a connected socket hears of.
        for port in (53, 4000):
            with udp(node) as sock:
                await sock.connect((outside, port))
                await sock.send(b"anybody?")
                await ping(node, outside)
                await sock.send(b"anybody?")  # would raise
        for port in (22, 4000):
            assert await knock(node, (outside, port)) == "silence"
    assert await drain(dns) == []
    # On its LAN it answers.
    await connect(hosts[0], (str(router.downstream_gw), 22))
