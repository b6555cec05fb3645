"""Two ends that tell each other what they see: the only witnesses of these tests."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket as stdlib_socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from traceback import format_exception
from typing import Any

import trio

import patchbay
from patchbay import Device, Lab, Nat, NatConfig, Node, Router
from patchbay.model.nat import NAT_PRESETS, Behavior
from tests.patience import DEADLINE
from tests.sockets import held

Endpoint = tuple[str, int]

PROTOCOLS = ("udp", "tcp")
NATS: dict[str, NatConfig] = {str(preset): config for preset, config in NAT_PRESETS.items()}
CLASSES: dict[str, NatConfig] = {
    f"{mapping.short}M-{filtering.short}F": NatConfig(mapping, filtering)
    for mapping in Behavior
    for filtering in Behavior
}


def udp(node: Node, port: int = 0) -> trio.socket.SocketType:
    """A UDP socket of the node, bound."""
    plain = held(node, node.socket(stdlib_socket.AF_INET, stdlib_socket.SOCK_DGRAM))
    plain.bind(("0.0.0.0", port))
    return trio.socket.from_stdlib_socket(plain)


def tcp(node: Node, port: int = 0) -> trio.socket.SocketType:
    """A TCP socket of the node, bound to a port that others of it may use too."""
    return trio.socket.from_stdlib_socket(_plain_tcp(node, port))


def _plain_tcp(node: Node, port: int) -> stdlib_socket.socket:
    plain = held(node, node.socket(stdlib_socket.AF_INET, stdlib_socket.SOCK_STREAM))
    plain.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
    plain.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEPORT, 1)
    plain.bind(("0.0.0.0", port))
    return plain


def port_of(sock: trio.socket.SocketType) -> int:
    return int(sock.getsockname()[1])


async def hear(sock: trio.socket.SocketType) -> tuple[bytes, Endpoint]:
    """What comes next, and from whom."""
    with trio.fail_after(DEADLINE):
        data, sender = await sock.recvfrom(2048)
    return data, (sender[0], sender[1])


async def drain(sock: trio.socket.SocketType) -> list[bytes]:
    """What has come already."""
    readable = select.poll()
    readable.register(sock.fileno(), select.POLLIN)
    found = []
    while readable.poll(0):
        found.append(await sock.recv(2048))
    return found


def text_of(endpoint: Endpoint) -> bytes:
    return f"{endpoint[0]}:{endpoint[1]}".encode()


def endpoint_of(text: bytes) -> Endpoint:
    host, _, port = text.decode().rpartition(":")
    return host, int(port)


class Server:
    """Tells everybody on each of two ports, by UDP and TCP, which endpoint it sees."""

    def __init__(self, node: Device, udps: list[trio.socket.SocketType]) -> None:
        self.node = node
        self.endpoints: list[Endpoint] = [(str(node.ip), port) for port in PORTS]
        # To send from what inside hosts have talked to.
        self.sockets = dict(zip(self.endpoints, udps, strict=True))


PORTS = (9000, 9001)


@contextlib.asynccontextmanager
async def serving(*nodes: Device) -> AsyncIterator[list[Server]]:
    async with trio.open_nursery() as nursery:
        servers = []
        for node in nodes:
            sockets = [udp(node, port) for port in PORTS]
            for sock in sockets:
                nursery.start_soon(_tell_udp, sock)
            for port in PORTS:
                await nursery.start(node.task, _serve_tcp, port)
            servers.append(Server(node, sockets))
        yield servers
        nursery.cancel_scope.cancel()


async def _tell_udp(sock: trio.socket.SocketType) -> None:
    while True:
        data, sender = await sock.recvfrom(2048)
        if data == b"who am I?":
            await sock.sendto(text_of(sender), sender)


async def _serve_tcp(port: int, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    async def tell(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(text_of(stream.socket.getpeername()) + b"\n")
            async for data in stream:
                await stream.send_all(data)

    await trio.serve_tcp(tell, port, task_status=task_status)


class Inside:
    """An inside endpoint: one port of a device, that it talks from to many by one protocol."""

    def __init__(self, node: Node, protocol: str, port: int = 0) -> None:
        self.node, self.protocol = node, protocol
        self._udp = udp(node, port) if protocol == "udp" else None
        # Holds the port, and listens.
        self.listener = tcp(node, port) if protocol == "tcp" else None
        if self.listener:
            self.listener.listen(16)
        self.port = port_of(self._udp or self.listener)  # type: ignore[arg-type]
        # What came from others, while it waited for an answer.
        self.others: list[tuple[bytes, Endpoint]] = []
        self._streams: dict[Endpoint, trio.socket.SocketType] = {}

    @property
    def udp(self) -> trio.socket.SocketType:
        assert self._udp
        return self._udp

    async def seen_by(self, server: Endpoint) -> Endpoint:
        """The outside endpoint that the server sees; a TCP connection stays open, and is asked again."""
        if self._udp:
            await self._udp.sendto(b"who am I?", server)
            while (heard := await hear(self._udp))[1] != server:
                self.others.append(heard)
            return endpoint_of(heard[0])
        with trio.fail_after(DEADLINE):
            sock = tcp(self.node, self.port)
            await sock.connect(server)
            self._streams[server] = sock
            return endpoint_of((await sock.recv(2048)).strip())

    def close(self) -> None:
        for sock in (self._udp, self.listener, *self._streams.values()):
            if sock:
                sock.close()


class Net:
    """Routers with NATs, an inside host or two below each, two servers and a stranger."""

    def __init__(self, lab: Lab, servers: list[Server], stranger: Device) -> None:
        self.lab, self.servers, self.stranger = lab, servers, stranger
        self.routers: list[Router] = []
        self.kind = ""
        self.s1, self.s2 = servers

    @property
    def endpoints(self) -> list[Endpoint]:
        return [*self.s1.endpoints, *self.s2.endpoints]

    async def add_nat(self, nat: Nat | NatConfig | str, hosts: int = 2, **options: Any) -> list[Device]:
        """The hosts below a new router."""
        number = len(self.routers)
        router = await self.lab.add_router(f"nat{number}", nat=nat, **options)
        self.routers.append(router)
        return [await self.lab.add_device(f"host{number}-{each}", uplink=router) for each in range(hosts)]


@contextlib.asynccontextmanager
async def net() -> AsyncIterator[Net]:
    async with patchbay.open_lab() as lab:
        dc = await lab.add_router("dc", preset="datacenter")
        s1, s2, stranger = [await lab.add_device(name, uplink=dc) for name in ("s1", "s2", "stranger")]
        async with serving(s1, s2) as servers:
            yield Net(lab, servers, stranger)


Check = Callable[[Net, NatConfig, list[Device]], Awaitable[None]]


async def with_each(nats: Mapping[str, NatConfig], check: Check, *, hosts: int = 2) -> None:
    """Checks many NATs at once, in one lab; tells of each that fails what failed."""
    failed: dict[str, BaseException] = {}
    async with net() as world:
        places: dict[str, list[Device]] = {}
        async with world.lab.batch():
            for kind, nat in nats.items():
                places[kind] = await world.add_nat(nat, hosts)

        async def one(kind: str, router: Router) -> None:
            own = Net(world.lab, world.servers, world.stranger)
            own.routers, own.kind = [router], kind
            try:
                await check(own, nats[kind], places[kind])
            except Exception as error:  # told below, with its place
                failed[kind] = error

        async with trio.open_nursery() as nursery:
            for kind, router in zip(nats, world.routers, strict=True):
                nursery.start_soon(one, kind, router)
    told = "".join(f"\n\n{kind}:\n{''.join(format_exception(error))}" for kind, error in failed.items())
    assert not failed, f"{', '.join(failed)}{told}"


async def connect(node: Node, to: Endpoint, *, port: int = 0, before: float = math.inf) -> bool:
    """Wait until a TCP connection from the node is open. False: it was not tried `before` that time."""
    with _plain_tcp(node, port) as sock:
        sock.setblocking(False)
        found = sock.connect_ex(to)
        if trio.current_time() >= before:
            return False
        if found == errno.EINPROGRESS:
            with trio.fail_after(DEADLINE):
                await trio.lowlevel.wait_writable(sock)
            found = sock.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_ERROR)
        if found:
            raise OSError(found, os.strerror(found))
    return True


_MET = {
    errno.EALREADY: "silence",
    errno.ECONNREFUSED: "refused",
    0: "open",
    errno.EISCONN: "open",
}


async def knock(node: Node, to: Endpoint, *, port: int = 0, past: str = "") -> str:
    """Return what a SYN from the node has met: "open", "refused", or "silence" until `has_passed`.

    `past` is an address that answers pings on the way to `to`; by default that of `to`.
    """
    with _plain_tcp(node, port) as sock:
        sock.setblocking(False)
        found = sock.connect_ex(to)
        await has_passed(node, past or to[0])
        return _MET[sock.connect_ex(to) if found == errno.EINPROGRESS else found]


async def has_passed(node: Node, to: str) -> None:
    """Return when what the node has sent towards an address has arrived, or never will.

    The witness is a ping that is sent later, on the same way. It is sent twice, because the first answer may
    come together with what was sent before. Another processor may still hold a packet back, so a test may
    miss a packet that should not have passed. Therefore a test that expects a packet uses `hear`.
    """
    await ping(node, to)
    await ping(node, to)


async def ping(node: Node, to: str) -> None:
    """Return when an echo request (RFC 792) is answered."""
    plain = node.socket(stdlib_socket.AF_INET, stdlib_socket.SOCK_RAW, stdlib_socket.IPPROTO_ICMP)
    # Type 8 and code 0, checksum (RFC 1071), identifier, sequence number, data. The identifier is random,
    # because several hosts of a NAT may ping at once.
    kind, rest = 0x0800, struct.unpack("!8H", os.urandom(16))
    request = struct.pack("!10H", kind, 0xFFFF - (kind + sum(rest)) % 0xFFFF, *rest)
    with trio.fail_after(DEADLINE), trio.socket.from_stdlib_socket(plain) as sock:
        await sock.sendto(request, (to, 0))
        reply = b""
        while (reply[20:21], reply[28:]) != (b"\0", request[8:]):  # after 20 bytes of IP
            reply = await sock.recv(2048)
