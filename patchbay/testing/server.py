"""A STUN server for labs: two addresses, two ports each, UDP and TCP (RFC 8489, RFC 5780)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio
from attrs import frozen

from patchbay.lab.reflector import background
from patchbay.services import stun_messages as stun
from patchbay.testing.place import DATAGRAM, STREAM, Endpoint, Place, endpoint_of
from patchbay.testing.streams import receive

if TYPE_CHECKING:
    from patchbay.errors import PatchbayError
    from patchbay.lab.node import Node

__all__ = ["StunServers", "serve_stun"]


@frozen
class StunServers:
    """A running server. `endpoints` are its first address with both ports, then its second with both."""

    endpoints: tuple[Endpoint, ...]
    _places: tuple[Place, ...]

    @property
    def first(self) -> Endpoint:
        """Return the endpoint for clients: the first address and port."""
        return self.endpoints[0]

    def changed(self, origin: Endpoint, *, address: bool, port: bool) -> Endpoint | None:
        """Return the endpoint that differs from `origin` in address, port, or both; None if there is none."""
        place = self.endpoints.index(origin) ^ (2 * address + port)
        return self.endpoints[place] if place < len(self.endpoints) else None

    async def connect(self, origin: Endpoint, target: Endpoint) -> bool:
        """Return True if a TCP connection from one of `endpoints` to `target` succeeds; it is closed at once.

        Takes as long as the kernel tries, minutes where nothing answers: to be bounded by the caller.
        """
        place = self._places[self.endpoints.index(origin) // 2]
        with await place.bound(STREAM, origin) as sock:
            try:
                await sock.connect(target)
            except OSError:
                return False
        return True


@contextlib.asynccontextmanager
async def serve_stun(
    first: Node | tuple[Node | None, str],
    second: Node | tuple[Node | None, str] | None = None,
    *,
    ports: tuple[int, int] = (3478, 3479),
) -> AsyncIterator[StunServers]:
    """Serve STUN for as long as the block lasts: binding over UDP and TCP, over UDP also from the other
    address or port (CHANGE-REQUEST) and to another port of the client's (RESPONSE-PORT).

    `first` and `second` are nodes, meant by the address of their default interface, or pairs of a node (None
    for the host) and one of its addresses. Without `second`, there is no OTHER-ADDRESS, and a request for
    a change is refused, as RFC 5780 section 6 has it; clients can tell mapping and filtering only with both.

    Raises `ValueError` for a node without an IPv4 address, `OSError` where a port is taken.
    """
    sites = [_site(place) for place in (first, second) if place is not None]
    servers = StunServers(
        tuple((host, port) for _, host in sites for port in ports), tuple(place for place, _ in sites)
    )
    async with contextlib.AsyncExitStack() as stack:
        udp, listeners = dict[Endpoint, trio.socket.SocketType](), list[trio.SocketListener]()
        for index, endpoint in enumerate(servers.endpoints):
            place = sites[index // 2][0]
            udp[endpoint] = stack.enter_context(await place.bound(DATAGRAM, endpoint))
            listening = stack.enter_context(await place.bound(STREAM, endpoint))
            listening.listen()
            listeners.append(trio.SocketListener(listening))
        gone = partial(_first_gone, [place for place, _ in sites])
        async with background(gone) as tasks:
            for endpoint in udp:
                tasks.start_soon(_serve_udp, servers, udp, endpoint)
            tasks.start_soon(trio.serve_listeners, partial(_serve_tcp, servers), listeners)
            yield servers


def _first_gone(places: Sequence[Place]) -> PatchbayError | None:
    return next((error for place in places if (error := place.gone())), None)


def _site(given: Node | tuple[Node | None, str]) -> tuple[Place, str]:
    if isinstance(given, tuple):
        node, host = given
        return Place(node), host
    if given.ip is None:
        raise ValueError(f"'{given.name}' has no IPv4 address; give (node, address) instead")
    return Place(given), str(given.ip)


async def _serve_udp(
    servers: StunServers, sockets: dict[Endpoint, trio.socket.SocketType], own: Endpoint
) -> None:
    while True:
        try:
            data, address = await sockets[own].recvfrom(65535)
        except OSError:  # an ICMP error about an answer sent before
            continue
        request = stun.decode(data)
        if not isinstance(request, stun.Request):
            continue
        client = endpoint_of(address)
        origin, answer = _answer(servers, own, client, request)
        port = client[1] if request.response_port is None else request.response_port
        with contextlib.suppress(OSError):
            await sockets[origin].sendto(stun.encode(answer), (client[0], port))


def _answer(
    servers: StunServers, own: Endpoint, client: Endpoint, request: stun.Request
) -> tuple[Endpoint, stun.Message]:
    """Return the endpoint to answer from, and the answer."""
    other = servers.changed(own, address=True, port=True)
    origin = servers.changed(own, address=request.change_address, port=request.change_port)
    # Without another address there is no other port either (RFC 5780 section 6.1).
    changes = request.change_address or request.change_port
    unknown = (*request.unknown, *((0x0003,) if changes and other is None else ()))
    if unknown or origin is None:
        return own, stun.Refusal(request.transaction, 420, unknown)
    return origin, stun.Response(request.transaction, client, origin, other)


async def _serve_tcp(servers: StunServers, stream: trio.SocketStream) -> None:
    """Answer on a connection until the client closes it, or sends something else than STUN."""
    with contextlib.suppress(OSError, trio.BrokenResourceError):
        own, client = endpoint_of(stream.socket.getsockname()), endpoint_of(stream.socket.getpeername())
        while (request := await receive(stream)) is not None:
            if isinstance(request, stun.Request):
                await stream.send_all(stun.encode(_answer(servers, own, client, request)[1]))
