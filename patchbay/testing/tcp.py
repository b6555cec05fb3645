"""Probes by TCP: binding over connections (RFC 8489), and what lets connections in (RFC 5382 section 4)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable

import trio

from patchbay.lab.reflector import Background, background
from patchbay.model.nat import Behavior
from patchbay.services import stun_messages as stun
from patchbay.testing.place import STREAM, Endpoint, Place, endpoint_of
from patchbay.testing.probe import Answer, Hairpin, Observation, RetryTimes
from patchbay.testing.server import StunServers
from patchbay.testing.streams import receive

__all__ = ["TcpInside", "TcpProber", "open_tcp"]

# The kernel sends a SYN again after 1 s (RFC 6298 section 2.1): two tries are in any wait for silence.
_SYN_AGAIN = 1.0


class TcpInside:
    """One port: connections leave from it, and it may be listened at."""

    def __init__(self, prober: TcpProber, holder: trio.socket.SocketType) -> None:
        self._prober = prober
        # Bound and no more: it keeps the port from being given to others.
        self._holder = holder
        self.accepted: list[Endpoint] = []

    @property
    def endpoint(self) -> Endpoint:
        return endpoint_of(self._holder.getsockname())

    async def ask(self, server: Endpoint) -> Answer | None:
        """Over a connection that stays open, and its mapping with it."""
        with (
            trio.move_on_after(sum(self._prober.pace.asking)),
            contextlib.suppress(OSError, trio.BrokenResourceError),
        ):
            stream = trio.SocketStream(await self.connect(server))
            started = trio.current_time()
            request = stun.Request(os.urandom(12))
            await stream.send_all(stun.encode(request))
            message = await receive(stream)
            if (
                isinstance(message, stun.Response | stun.Refusal)
                and message.transaction == request.transaction
            ):
                return Answer(message, server, trio.current_time() - started)
        return None

    async def connect(self, to: Endpoint) -> trio.socket.SocketType:
        """Connect from this port, for as long as the prober lives. Raises `OSError`."""
        sock = await self._prober.bound(self.endpoint[1])
        await sock.connect(to)
        return sock

    async def listen(self) -> None:
        """Accept at this port from now on, and note in `accepted` who comes."""
        sock = await self._prober.bound(self.endpoint[1])
        sock.listen()
        self._prober.tasks.start_soon(self._accept, sock)

    async def _accept(self, sock: trio.socket.SocketType) -> None:
        while True:
            connection, address = await sock.accept()
            self._prober.sockets.enter_context(connection)
            self.accepted.append(endpoint_of(address))


class TcpProber:
    """See `Prober`. Filtering takes a server of this process, `serve_stun`, that connects on request."""

    def __init__(
        self,
        place: Place,
        own: str,
        servers: StunServers | None,
        tasks: Background,
        sockets: contextlib.ExitStack,
    ) -> None:
        self.pace = RetryTimes.of(0.2, 5)
        self.tasks = tasks
        self.sockets = sockets
        self._place = place
        self._own = own
        self._servers = servers

    async def bound(self, port: int) -> trio.socket.SocketType:
        return self.sockets.enter_context(await self._place.bound(STREAM, (self._own, port)))

    async def inside(self) -> TcpInside:
        return TcpInside(self, await self.bound(0))

    @property
    def _silence(self) -> float:
        return _SYN_AGAIN + self.pace.silence[-1]

    async def filtering(self, server: Endpoint, answer: Answer) -> Observation:
        """Let the server connect to a port that listens, and from which one connection was made, to the
        server's first endpoint. STUN itself cannot ask for that.
        """
        if self._servers is None:
            return Observation(None, "by TCP only a server of the same program (serve_stun) can tell")
        both = self._servers.changed(server, address=True, port=True)
        port = self._servers.changed(server, address=False, port=True)
        if both is None or port is None:
            return Observation(None, "the server has no second address")
        inside = await self.inside()
        await inside.listen()
        own = await inside.ask(server)
        if own is None or own.mapped is None:
            return Observation(None, "the server did not answer")
        came = await self._come_in(self._servers, (both, port), own.mapped)
        if both in came:
            return Observation(Behavior.ENDPOINT_INDEPENDENT)
        return Observation(Behavior.ADDRESS_DEPENDENT if came else Behavior.ADDRESS_AND_PORT_DEPENDENT)

    async def _come_in(
        self, servers: StunServers, origins: Iterable[Endpoint], target: Endpoint
    ) -> set[Endpoint]:
        came = set[Endpoint]()

        async def connect(origin: Endpoint) -> None:
            if await servers.connect(origin, target):
                came.add(origin)

        with trio.move_on_after(self._silence):
            async with trio.open_nursery() as nursery:
                for origin in origins:
                    nursery.start_soon(connect, origin)
        return came

    async def hairpin(self, server: Endpoint) -> Hairpin | None:
        """Let two listening ports connect to each other's mapping: the listener gets it, or both open at
        once (RFC 5382 REQ-2, REQ-8).
        """
        pair = [await self.inside(), await self.inside()]
        answers = []
        for inside in pair:
            await inside.listen()
            answers.append(await inside.ask(server))
        mapped = [answer.mapped if answer else None for answer in answers]
        if mapped[0] is None or mapped[1] is None:
            return None
        works = False

        async def connect(own: TcpInside, to: Endpoint, nursery: trio.Nursery) -> None:
            nonlocal works
            with contextlib.suppress(OSError):
                await own.connect(to)
                works = True
                nursery.cancel_scope.cancel()

        with trio.move_on_after(self._silence):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect, pair[0], mapped[1], nursery)
                nursery.start_soon(connect, pair[1], mapped[0], nursery)
        return Hairpin(works)


@contextlib.asynccontextmanager
async def open_tcp(place: Place, own: str, servers: StunServers | None = None) -> AsyncIterator[TcpProber]:
    """Open a prober at an address of its own. Its connections last as long as the block, so that
    no mapping is given away again meanwhile.
    """
    with contextlib.ExitStack() as sockets:
        async with background(place.gone) as tasks:
            yield TcpProber(place, own, servers, tasks, sockets)
