"""Firewalls, path MTU, and what they do beside a NAT."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import AsyncIterator

import pytest
import trio
from attrs import frozen

import patchbay
from patchbay import Device, FirewallConfig, SpecError
from tests.nat.talk import Inside, connect, drain, has_passed, hear, knock, net, tcp, udp
from tests.patience import DEADLINE, await_until

pytestmark = pytest.mark.kernel

# What passes from below, in both IP versions: (protocol, port).
OUTBOUND = {
    "none": {("tcp", 80), ("tcp", 443), ("tcp", 8080), ("udp", 53), ("udp", 443)},
    "block-inbound": {("tcp", 80), ("tcp", 443), ("tcp", 8080), ("udp", 53), ("udp", 443)},
    "corporate": {("tcp", 80), ("tcp", 443), ("udp", 53)},
    "captive-portal": {("tcp", 80), ("tcp", 443), ("tcp", 8080), ("udp", 53)},
}
EVERYTHING = sorted(OUTBOUND["none"])


@frozen
class Question:
    """By which protocol, at which port and in which IP version one asks a node where all is echoed."""

    version: int
    protocol: str
    port: int

    def _ask(self, sender: Device, to: Device) -> socket.socket:
        family = socket.AF_INET if self.version == 4 else socket.AF_INET6
        sock = sender.socket(family, socket.SOCK_DGRAM if self.protocol == "udp" else socket.SOCK_STREAM)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect((str(to.ip if self.version == 4 else to.ip6), self.port))
        if self.protocol == "udp":
            sock.send(b"hello")
        return sock

    async def passes(self, sender: Device, to: Device) -> None:
        with trio.fail_after(DEADLINE), trio.socket.from_stdlib_socket(self._ask(sender, to)) as sock:
            if self.protocol == "tcp":
                await trio.lowlevel.wait_writable(sock)
                await sock.send(b"hello")
            assert await sock.recv(100) == b"hello", self

    async def is_dropped(self, sender: Device, to: Device, past: str) -> None:
        """Neither an answer comes nor a refusal, until answers of the address `past` on the same way."""
        with self._ask(sender, to) as sock:
            await has_passed(sender, past)
            if self.protocol == "tcp":
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0, self
                with pytest.raises(OSError, match="not connected"):
                    sock.getpeername()
            else:
                with pytest.raises(BlockingIOError):
                    sock.recv(100)


async def serve(node: Device, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Echoes on all the ports, by both protocols and both IP versions."""

    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def echo_udp(sock: trio.socket.SocketType) -> None:
        with sock:
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
    async with patchbay.open_lab() as lab, trio.open_nursery() as nursery:
        dc = await lab.add_router("dc", preset="datacenter")
        router = await lab.add_router("r", preset="datacenter", firewall=firewall)
        server = await lab.add_device("server", uplink=dc)
        host = await lab.add_device("host", uplink=router)
        for node in (server, host):
            await nursery.start(node.task, serve, node)
        async with trio.open_nursery() as asking:
            for version, (protocol, port) in itertools.product((4, 6), EVERYTHING):
                question = Question(version, protocol, port)
                if (protocol, port) in OUTBOUND[firewall]:
                    asking.start_soon(question.passes, host, server)
                else:
                    asking.start_soon(question.is_dropped, host, server, str(server.ip))
                if firewall == "none":
                    asking.start_soon(question.passes, server, host)
                else:
                    asking.start_soon(question.is_dropped, server, host, str(router.uplink_ip))
        # Pings pass outwards in any case; inwards those of IPv6, that RFC 4890 wants.
        await host.run(["ping", "-c1", "-W60", str(server.ip)], capture_stdout=True)
        await server.run(["ping", "-c1", "-W60", str(host.ip6)], capture_stdout=True)
        nursery.cancel_scope.cancel()


async def test_a_policy_of_ones_own() -> None:
    async with net() as world:
        config = FirewallConfig(outbound_tcp=[9000], outbound_udp="none")
        (host,) = await world.add_nat("home", hosts=1, firewall=config)
        assert world.routers[0].firewall == config
        await connect(host, world.endpoints[0])
        assert await knock(host, world.endpoints[1]) == "silence"
        with udp(host) as sock:
            await sock.sendto(b"who am I?", world.endpoints[0])
            await has_passed(host, world.endpoints[0][0])
            assert await drain(sock) == []


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
        with trio.fail_after(DEADLINE), tcp(host) as sock:
            await sock.connect(world.endpoints[0])
            assert await sock.recv(100)
            await router.set_firewall("corporate")
            assert router.firewall == "corporate"
            await sock.send(b"still there?")
            assert await sock.recv(100) == b"still there?"
        assert await end.seen_by(world.endpoints[0]) == outside
        assert await knock(host, world.endpoints[1]) == "silence"
        await router.set_firewall("none")
        await connect(host, world.endpoints[1])
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
                if blocked:
                    assert await is_lost(host, server, version), (preset, version)
                else:
                    assert await upload(host, server, version, LARGE) == (1500, 1400), (preset, version)
                await upload(host, server, version, 1000)

        async with serving_uploads(server), trio.open_nursery() as nursery:
            for preset in presets:
                nursery.start_soon(check, preset)


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


LARGE = 500_000


async def connect_for_uploads(host: Device, server: Device, version: int) -> trio.SocketStream:
    with host.enter():
        return await trio.open_tcp_stream(str(server.ip if version == 4 else server.ip6), 443)


async def upload(host: Device, server: Device, version: int, size: int) -> tuple[int, int]:
    """Upload by TCP. Return the size of the packets before and after."""
    stream = await connect_for_uploads(host, server, version)

    def packet_size() -> int:
        # IP and TCP headers, and 12 bytes of timestamps.
        headers = {4: 52, 6: 72}[version]
        return headers + stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)

    async with stream:
        before = packet_size()
        with trio.fail_after(DEADLINE):
            await stream.send_all(bytes(size))
            await stream.send_eof()
            assert await stream.receive_some() == str(size).encode()
        return before, packet_size()


async def is_lost(host: Device, server: Device, version: int) -> bool:
    """Whether the first segments of a large upload are sent again and again, and none of them arrives."""
    stream = await connect_for_uploads(host, server, version)
    got = b""

    async def send() -> None:
        nonlocal got
        await stream.send_all(bytes(LARGE))
        await stream.send_eof()
        got = await stream.receive_some()

    def repeated() -> int:
        """How often the first segment was sent again (linux/tcp.h, tcpi_retransmits)."""
        return stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[2]

    async def has_an_end() -> bool:
        return got != b"" or repeated() >= 2

    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await await_until(has_an_end)
        nursery.cancel_scope.cancel()
    return not got
