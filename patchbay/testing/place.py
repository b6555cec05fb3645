"""Places of probes and servers: sockets in a node or in the host's own network, and their tasks."""

from __future__ import annotations

import contextlib
import socket as stdlib_socket
from typing import TYPE_CHECKING, Any

import trio
from attrs import frozen

if TYPE_CHECKING:
    from patchbay.errors import PatchbayError
    from patchbay.lab.node import Node

__all__ = ["DATAGRAM", "STREAM", "Endpoint", "Place", "endpoint_of"]

# A host, as the text of an IP address, and a port.
Endpoint = tuple[str, int]

DATAGRAM, STREAM = stdlib_socket.SOCK_DGRAM, stdlib_socket.SOCK_STREAM


def endpoint_of(address: Any) -> Endpoint:
    """Host and port of what a socket calls an address, in either family."""
    return address[0], address[1]


@frozen
class Place:
    """A node, or without one the network that the calling task is in anyway."""

    node: Node | None

    def gone(self) -> PatchbayError | None:
        """Return the error of who uses the node now, or None while it can be used."""
        return self.node.gone() if self.node else None

    async def bound(self, kind: int, local: Endpoint) -> trio.socket.SocketType:
        """Return a socket at `local`. TCP sockets made here share their port. Raises `OSError`."""
        sock = self._socket(kind, local[0])
        try:
            if kind == STREAM:
                # All of a port need both: a listener, and connections that leave from where it listens.
                sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
                sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEPORT, 1)
            await sock.bind(local)
        except BaseException:
            sock.close()
            raise
        return sock

    def _socket(self, kind: int, host: str) -> trio.socket.SocketType:
        family = stdlib_socket.AF_INET6 if ":" in host else stdlib_socket.AF_INET
        if self.node is None:
            return trio.socket.socket(family, kind)
        return trio.socket.from_stdlib_socket(self.node.socket(family, kind))

    async def own_address(self, towards: Endpoint) -> str:
        """Return the source address of packets to an endpoint. Sends nothing. Raises `OSError`."""
        with self._socket(DATAGRAM, towards[0]) as sock:
            await sock.connect(towards)
            return endpoint_of(sock.getsockname())[0]

    async def look_up(self, host: str, port: int) -> Endpoint:
        """Return the first address of a name, IPv4 first. Raises `socket.gaierror`."""
        with self.node.enter() if self.node else contextlib.nullcontext():
            found = await trio.socket.getaddrinfo(host, port, type=DATAGRAM)
        return min(
            (family != stdlib_socket.AF_INET, endpoint_of(address)) for family, _, _, _, address in found
        )[1]
