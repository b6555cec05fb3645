"""Who asks routers for ports, who serves behind them, and who comes from outside."""

from __future__ import annotations

import contextlib
import errno
import re
import secrets
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from typing import Any

import trio

import patchbay
from patchbay.lab.lab import Lab
from patchbay.plan.port_mapping import HTTP_PORT
from tests.patience import DEADLINE

LAB: dict[str, Any] = {
    "router": [
        {"name": "dc", "preset": "datacenter"},
        {"name": "home", "preset": "home", "port_mapping": True},
    ],
    "device": {
        "stranger": {"eth0": {"gateway": "dc"}},
        "laptop": {"eth0": {"gateway": "home"}},
        "phone": {"eth0": {"gateway": "home"}},
    },
}
NAT_PMP_PORT = 5351  # RFC 6886, RFC 6887
KIND = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}
NUMBER = {"udp": socket.IPPROTO_UDP, "tcp": socket.IPPROTO_TCP}
INSIDE, OUTSIDE, WITNESS = 7001, 7000, 7999  # WITNESS on both sides


@contextlib.asynccontextmanager
async def mapping_lab(spec: dict[str, Any] = LAB) -> AsyncIterator[Lab]:
    async with patchbay.open_lab(spec) as lab:
        yield lab


# Who asks


async def told(node: Any, *argv: Any) -> str:
    done = await node.run([*map(str, argv)], check=False, capture_stdout=True, capture_stderr=True)
    return str((done.stdout + done.stderr).decode())


def gateway(node: Any) -> str:
    return str(node.lab.router(node.iface("eth0").router).downstream_gw)


class Upnp:
    """miniupnpc's client, with `-u` rather than 2 s of discovery."""

    async def ask(self, node: Any, *argv: Any) -> str:
        url = f"http://{gateway(node)}:{HTTP_PORT}/rootDesc.xml"
        return await told(node, "upnpc", "-u", url, *argv)

    async def map(self, node: Any, proto: str, lifetime: int = 600) -> tuple[str, int]:
        """The outside endpoint."""
        out = await self.ask(node, "-a", node.ip, INSIDE, OUTSIDE, proto, lifetime)
        found = re.search(rf"external (\S+):(\d+) {proto.upper()} is redirected", out)
        assert found, out
        return found[1], int(found[2])

    async def unmap(self, node: Any, proto: str) -> None:
        out = await self.ask(node, "-d", OUTSIDE, proto)
        assert "UPNP_DeletePortMapping() returned : 0" in out, out


class NatPmp:
    """libnatpmp's client."""

    async def ask(self, node: Any, *argv: Any) -> str:
        out = "protocol UNKNOWN"
        # Where the first answer is late, libnatpmp asks twice, and takes the second answer for one to its
        # second question.
        while "protocol UNKNOWN" in out:
            out = await told(node, "natpmpc", "-g", gateway(node), *argv)
        return out

    async def map(
        self, node: Any, proto: str, lifetime: int = 600, outside: int = OUTSIDE, inside: int = INSIDE
    ) -> tuple[str, int]:
        out = await self.ask(node, "-a", outside, inside, proto, lifetime)
        address = re.search(r"Public IP address : (\S+)", out)
        port = re.search(rf"Mapped public port (\d+) protocol {proto.upper()} to local port {inside}", out)
        assert address and port, out
        return address[1], int(port[1])

    async def unmap(self, node: Any, proto: str) -> None:
        out = await self.ask(node, "-a", 0, INSIDE, proto, 0)
        assert "liftime 0" in out, out


class Pcp:
    """RFC 6887 sections 7 and 11, by hand: Debian has no client."""

    def __init__(self) -> None:
        self.nonce = secrets.token_bytes(12)

    async def ask(self, node: Any, proto: str, lifetime: int) -> bytes:
        version, map_opcode, any_address = 2, 1, b"\0" * 10 + b"\xff\xff" + b"\0" * 4
        own = any_address[:12] + IPv4Address(str(node.ip)).packed
        request = bytes([version, map_opcode, 0, 0]) + lifetime.to_bytes(4) + own
        request += self.nonce + bytes([NUMBER[proto], 0, 0, 0])
        request += INSIDE.to_bytes(2) + OUTSIDE.to_bytes(2) + any_address
        plain = node.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with trio.socket.from_stdlib_socket(plain) as sock, trio.fail_after(DEADLINE):
            await sock.connect((gateway(node), NAT_PMP_PORT))
            await sock.send(request)
            return await sock.recv(1100)

    async def map(self, node: Any, proto: str, lifetime: int = 600) -> tuple[str, int]:
        answer = await self.ask(node, proto, lifetime)
        assert (answer[1], answer[3]) == (129, 0), answer
        return str(IPv4Address(answer[56:60])), int.from_bytes(answer[42:44])

    async def unmap(self, node: Any, proto: str) -> None:
        answer = await self.ask(node, proto, 0)
        assert (answer[1], answer[3], int.from_bytes(answer[4:8])) == (129, 0, 0), answer


Client = Upnp | NatPmp | Pcp


# Who serves inside, and who comes from outside


async def serve(node: Any, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    """Tells whoever comes to `INSIDE`, or by UDP to `WITNESS`, whom it has reached and from which address."""

    def words(peer: tuple[str, int]) -> bytes:
        return f"{node.name} {peer[0]} {peer[1]}".encode()

    async def tell(stream: trio.SocketStream) -> None:
        await stream.receive_some()  # or what is unread resets the connection at its end
        await stream.send_all(words(stream.socket.getpeername()))

    async def udp(port: int, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.bind(("0.0.0.0", port))
            task_status.started()
            while True:
                _, peer = await sock.recvfrom(100)
                await sock.sendto(words(peer), peer)

    with node.enter():
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_tcp, tell, INSIDE)
            await nursery.start(udp, INSIDE)
            await nursery.start(udp, WITNESS)
            task_status.started()


@contextlib.asynccontextmanager
async def serving(*nodes: Any) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(serve, node)
        yield
        nursery.cancel_scope.cancel()


async def reached(lab: Lab, proto: str, port: int) -> str:
    """Which host the stranger reaches at that port of the router; it must see the stranger's own address."""
    plain = lab.device("stranger").socket(socket.AF_INET, KIND[proto])
    with trio.socket.from_stdlib_socket(plain) as sock, trio.fail_after(DEADLINE):
        await sock.connect((str(lab.router("home").ip), port))
        await sock.send(b"?")
        name, *peer = (await sock.recv(100)).decode().split()
        assert peer == [*map(str, sock.getsockname())]
        return name


async def is_shut(lab: Lab, proto: str, port: int) -> bool:
    """Whether nothing comes back from there, until questions asked later, elsewhere, are answered.

    They go the same way to the same host. Twice, for the first may come together with the probe.
    """
    with contextlib.closing(lab.device("stranger").socket(socket.AF_INET, KIND[proto])) as probe:
        probe.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # TCP: on its way, or not
            probe.connect((str(lab.router("home").ip), port))
        if proto == "udp":
            probe.send(b"?")
        for _ in range(2):
            await reached(lab, "udp", WITNESS)
        try:
            if proto == "udp":
                probe.recv(100)
            probe.getpeername()
        except BlockingIOError:
            return True
        except OSError as error:
            return error.errno == errno.ENOTCONN
        return False
