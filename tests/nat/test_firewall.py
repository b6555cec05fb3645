"""Firewalls, path MTU, and what they do beside a NAT."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio

import patchbay
from patchbay import Device, FirewallConfig, Lab, Router, SpecError
from tests.nat.talk import SOON, Inside, connects, hear, net, tcp, udp

pytestmark = pytest.mark.kernel

# What passes from below, in both IP versions: (protocol, port).
OUTBOUND = {
    "none": {("tcp", 80), ("tcp", 443), ("tcp", 8080), ("udp", 53), ("udp", 443)},
    "block-inbound": {("tcp", 80), ("tcp", 443), ("tcp", 8080), ("udp", 53), ("udp", 443)},
    "corporate": {("tcp", 80), ("tcp", 443), ("udp", 53)},
    "captive-portal": {("tcp", 80), ("tcp", 443), ("tcp", 8080), ("udp", 53)},
}
EVERYTHING = sorted(OUTBOUND["none"])


class Firewalled:
    """A server outside and a host inside, both with public addresses of both kinds."""

    def __init__(self, lab: Lab, router: Router, server: Device, host: Device) -> None:
        self.lab, self.router, self.server, self.host = lab, router, server, host

    async def passes(self, sender: Device, to: Device, version: int, protocol: str, port: int) -> bool:
        address = str(to.ip if version == 4 else to.ip6)
        options = (["-6"] if version == 6 else ["-4"]) + (["-u"] if protocol == "udp" else [])
        # The exit status of a client that is answered at once, or gives up.
        done = await sender.run(
            ["python3", "-c", CLIENT, str(version), protocol, address, str(port)], check=False, timeout=20
        )
        assert options and done.returncode in (0, 7), done
        return done.returncode == 0


CLIENT = """
import socket, sys
version, protocol, address, port = sys.argv[1:]
family = socket.AF_INET if version == "4" else socket.AF_INET6
with socket.socket(family, socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM) as sock:
    sock.settimeout(0.5)
    try:
        sock.connect((address, int(port)))
        sock.send(b"hello")
        sys.exit(0 if sock.recv(100) == b"hello" else 1)
    except TimeoutError:
        sys.exit(7)
"""


async def serve(node: Device, task_status=trio.TASK_STATUS_IGNORED) -> None:
    """Echoes on all the ports, by both protocols and both IP versions."""

    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def echo_udp(sock: trio.socket.SocketType) -> None:
        while True:
            data, sender = await sock.recvfrom(2048)
            await sock.sendto(data, sender)

    async with trio.open_nursery() as nursery:
        for protocol, port in EVERYTHING:
            if protocol == "tcp":
                await nursery.start(trio.serve_tcp, echo, port)
            else:
                for family, host in ((trio.socket.AF_INET, "0.0.0.0"), (trio.socket.AF_INET6, "::")):
                    sock = trio.socket.socket(family, trio.socket.SOCK_DGRAM)
                    if family == trio.socket.AF_INET6:
                        sock.setsockopt(trio.socket.IPPROTO_IPV6, trio.socket.IPV6_V6ONLY, 1)
                    await sock.bind((host, port))
                    nursery.start_soon(echo_udp, sock)
        task_status.started()


@pytest.mark.parametrize("firewall", OUTBOUND)
async def test_a_firewall_lets_through_what_its_row_says(firewall: str) -> None:
    with trio.fail_after(60):
        async with patchbay.open_lab() as lab, trio.open_nursery() as nursery:
            dc = await lab.add_router("dc", preset="datacenter")
            router = await lab.add_router("r", preset="datacenter", firewall=firewall)
            server = await lab.add_device("server", uplink=dc)
            host = await lab.add_device("host", uplink=router)
            here = Firewalled(lab, router, server, host)
            for node in (server, host):
                await nursery.start(node.task, serve, node)
            out, back = {}, {}

            async def note(
                found: dict, sender: Device, to: Device, version: int, each: tuple[str, int]
            ) -> None:
                found[version, *each] = await here.passes(sender, to, version, *each)

            async with trio.open_nursery() as asking:
                for version in (4, 6):
                    for each in EVERYTHING:
                        asking.start_soon(note, out, host, server, version, each)
                        asking.start_soon(note, back, server, host, version, each)
            for version in (4, 6):
                passed = {each for each in EVERYTHING if out[version, *each]}
                assert passed == OUTBOUND[firewall]
            assert set(back.values()) == {firewall == "none"}
            # Pings pass outwards in any case; inwards those of IPv6, that RFC 4890 wants.
            await host.run(["ping", "-c1", "-W5", str(server.ip)], capture_stdout=True)
            await server.run(["ping", "-c1", "-W5", str(host.ip6)], capture_stdout=True)
            nursery.cancel_scope.cancel()


async def test_a_policy_of_ones_own() -> None:
    async with net() as world:
        config = FirewallConfig(outbound_tcp=[9000], outbound_udp="none")
        (host,) = await world.add_nat("home", hosts=1, firewall=config)
        assert world.routers[0].firewall == config
        assert await connects(host, world.endpoints[0]) == "open"
        assert await connects(host, world.endpoints[1], within=0.3) == "silence"
        with udp(host) as sock:
            await sock.sendto(b"who am I?", world.endpoints[0])
            with pytest.raises(trio.TooSlowError), trio.fail_after(0.3):
                await sock.recv(100)


async def test_what_the_nat_lets_in_the_firewall_lets_in() -> None:
    async with net() as world:
        (host,) = await world.add_nat("full-cone", hosts=1, firewall="block-inbound")
        end = Inside(host, "udp", 5000)
        outside = await end.seen_by(world.endpoints[0])
        await udp(world.stranger).sendto(b"let me in", outside)
        assert (await hear(end.udp))[0] == b"let me in"


async def test_another_firewall_leaves_connections_and_mappings_alone() -> None:
    async with net() as world:
        (host,) = await world.add_nat(patchbay.NatConfig(port_allocation="random"), hosts=1)
        router = world.routers[0]
        end = Inside(host, "udp", 5000)
        outside = await end.seen_by(world.endpoints[0])
        with trio.fail_after(SOON), tcp(host) as sock:
            await sock.connect(world.endpoints[0])
            assert await sock.recv(100)
            await router.set_firewall("corporate")
            assert router.firewall == "corporate"
            await sock.send(b"still there?")
            assert await sock.recv(100) == b"still there?"
        assert await end.seen_by(world.endpoints[0]) == outside
        assert await connects(host, world.endpoints[1], within=0.3) == "silence"
        await router.set_firewall("none")
        assert await connects(host, world.endpoints[1]) == "open"
        assert await end.seen_by(world.endpoints[1]) == outside


async def test_a_firewall_that_is_refused_changes_nothing() -> None:
    async with net() as world:
        await world.add_nat("home", hosts=0)
        with pytest.raises(SpecError, match=r"firewall.outbound_tcp: found 'some'; accepted"):
            await world.routers[0].set_firewall({"outbound_tcp": "some"})
        assert world.routers[0].firewall == "none"


@pytest.mark.parametrize("blocked", [False, True], ids=["heard of", "kept back"])
async def test_path_mtu(blocked: bool) -> None:
    """Large uploads through routers whose uplinks take 1400 bytes: the sender has to be told by ICMP."""
    presets = ("home", "corporate", "mobile", "cloud", "hotel", "datacenter")
    wrong = []
    with trio.fail_after(60):
        async with patchbay.open_lab() as lab:
            dc = await lab.add_router("dc", preset="datacenter")
            server = await lab.add_device("server", uplink=dc)

            async def check(preset: str) -> None:
                narrow = await lab.add_router(preset, preset=preset, mtu=1400, block_icmp_frag_needed=blocked)
                assert narrow.block_icmp_frag_needed == blocked
                host = await lab.add_device(f"below {preset}", uplink=narrow)
                # Or TCP would find out by itself, some seconds later.
                await host.run(["sysctl", "-qw", "net.ipv4.tcp_mtu_probing=0"])
                for version in narrow.ip_support.versions:
                    large = await uploads(host, server, version, 500_000)
                    if large == blocked or not await uploads(host, server, version, 1000):
                        wrong.append((preset, version))

            async with serving_uploads(server), trio.open_nursery() as nursery:
                for preset in presets:
                    nursery.start_soon(check, preset)
    assert wrong == []


@contextlib.asynccontextmanager
async def serving_uploads(server: Device) -> AsyncIterator[None]:
    """Takes all that comes, and says then how much that was."""

    async def take(stream: trio.SocketStream) -> None:
        got = 0
        with contextlib.suppress(trio.BrokenResourceError):
            async for data in stream:
                got += len(data)
            await stream.send_all(str(got).encode())

    async with trio.open_nursery() as nursery:
        with server.enter():
            await nursery.start(trio.serve_tcp, take, 443)
        yield
        nursery.cancel_scope.cancel()


async def uploads(host: Device, server: Device, version: int, size: int) -> bool:
    """Whether so much comes through by TCP, in segments as large as the way takes."""
    address = str(server.ip if version == 4 else server.ip6)
    with host.enter():
        stream = await trio.open_tcp_stream(address, 443)
    # Of 1500 bytes: IP and TCP headers, and 12 bytes of timestamps.
    headers = {4: 52, 6: 72}[version]
    segment = partial(stream.socket.getsockopt, socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    before = segment()
    async with stream:
        with trio.move_on_after(1):
            await stream.send_all(bytes(size))
            await stream.send_eof()
            assert await stream.receive_some() == str(size).encode()
            assert size < 1500 or (before, segment()) == (1500 - headers, 1400 - headers)
            return True
    return False
