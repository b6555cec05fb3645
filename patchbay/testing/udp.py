"""Probes by UDP (RFC 5780 section 4)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence

import trio
from attrs import define, field

from patchbay.lab.reflector import Background, background
from patchbay.model.nat import Behavior
from patchbay.services import stun_messages as stun
from patchbay.testing.place import DATAGRAM, Endpoint, Place, endpoint_of
from patchbay.testing.probe import Answer, Hairpin, Observation, RetryTimes

__all__ = ["UdpInside", "UdpProber", "open_udp"]


@define
class _Awaited:
    """A message that is waited for."""

    event: trio.Event = field(factory=trio.Event)
    message: stun.Message | None = None
    source: Endpoint = ("", 0)

    async def within(self, seconds: float) -> bool:
        with trio.move_on_after(seconds):
            await self.event.wait()
        return self.event.is_set()


class UdpInside:
    """One socket, and who waits for what comes to it."""

    def __init__(self, sock: trio.socket.SocketType, pace: RetryTimes) -> None:
        self._socket = sock
        self._pace = pace
        self._awaited: dict[bytes, _Awaited] = {}

    @property
    def endpoint(self) -> Endpoint:
        return endpoint_of(self._socket.getsockname())

    async def receive(self) -> None:
        """Hand what comes to those who wait for it; all else is nobody's. Does not end."""
        while True:
            try:
                data, source = await self._socket.recvfrom(65535)
            except OSError:  # an ICMP error about something sent before
                continue
            message = stun.decode(data)
            awaited = self._awaited.get(message.transaction) if message else None
            if awaited and not awaited.event.is_set():
                awaited.message, awaited.source = message, endpoint_of(source)
                awaited.event.set()

    @contextlib.contextmanager
    def awaiting(self, transaction: bytes) -> Iterator[_Awaited]:
        """Collect every answer with this transaction id, from any sender."""
        self._awaited[transaction] = awaited = _Awaited()
        try:
            yield awaited
        finally:
            del self._awaited[transaction]

    async def send(self, message: stun.Message, to: Endpoint) -> None:
        """Send, or not: what the own network refuses is lost as well as what another does."""
        with contextlib.suppress(OSError):
            await self._socket.sendto(stun.encode(message), to)

    async def ask(self, server: Endpoint) -> Answer | None:
        return await self.request(server, self._pace.asking)

    async def request(
        self,
        server: Endpoint,
        pauses: Sequence[float],
        *,
        change_address: bool = False,
        change_port: bool = False,
    ) -> Answer | None:
        """Return the answer to one request, sent again after each of `pauses` (seconds) but the last."""
        request = stun.Request(os.urandom(12), change_address, change_port)
        started = trio.current_time()
        with self.awaiting(request.transaction) as awaited:
            for pause in pauses:
                await self.send(request, server)
                if await awaited.within(pause):
                    break
            if isinstance(awaited.message, stun.Response | stun.Refusal):
                return Answer(awaited.message, awaited.source, trio.current_time() - started)
        return None


class UdpProber:
    """See `Prober`."""

    def __init__(self, place: Place, own: str, tasks: Background, sockets: contextlib.ExitStack) -> None:
        self.pace = RetryTimes.of(0.2, 5)
        self._place = place
        self._own = own
        self._tasks = tasks
        self._sockets = sockets

    async def inside(self) -> UdpInside:
        sock = self._sockets.enter_context(await self._place.bound(DATAGRAM, (self._own, 0)))
        inside = UdpInside(sock, self.pace)
        self._tasks.start_soon(inside.receive)
        return inside

    async def filtering(self, server: Endpoint, answer: Answer) -> Observation:
        """RFC 5780 section 4.4: one socket, which sends to the server's first endpoint alone, and asks for
        answers from its other address and port, and from its other port.
        """
        if answer.other is None:
            return Observation(None, "the server has no second address and port (OTHER-ADDRESS)")
        inside = await self.inside()
        answers: dict[bool, Answer | None] = {}

        async def ask(change_address: bool) -> None:
            answers[change_address] = await inside.request(
                server, self.pace.silence, change_address=change_address, change_port=True
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, True)
            nursery.start_soon(ask, False)
        return _filtering(server, both=answers[True], port=answers[False])

    async def hairpin(self, server: Endpoint) -> Hairpin | None:
        """Let two sockets send to each other's mapping until something comes in: filtering may
        ask that both have sent (RFC 4787 section 6).
        """
        pair = [await self.inside(), await self.inside()]
        answers = [await inside.ask(server) for inside in pair]
        mapped = [answer.mapped if answer else None for answer in answers]
        if mapped[0] is None or mapped[1] is None:
            return None
        transaction, heard = os.urandom(12), list[Endpoint]()

        async def exchange(own: UdpInside, to: Endpoint, nursery: trio.Nursery) -> None:
            with own.awaiting(transaction) as awaited:
                for pause in self.pace.silence:
                    await own.send(stun.Indication(transaction), to)
                    if await awaited.within(pause):
                        heard.append(awaited.source)
                        nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange, pair[0], mapped[1], nursery)
            nursery.start_soon(exchange, pair[1], mapped[0], nursery)
        return Hairpin(bool(heard), heard[0] if heard else None)


def _filtering(server: Endpoint, *, both: Answer | None, port: Answer | None) -> Observation:
    for answer in filter(None, (both, port)):
        # From where it came is what counts: some servers ignore the request for a change.
        if isinstance(answer.message, stun.Refusal) or answer.source == server:
            return Observation(
                None, "the server does not answer from another address or port (CHANGE-REQUEST)"
            )
    if both and both.source[0] != server[0]:
        return Observation(Behavior.ENDPOINT_INDEPENDENT)
    if both or port:
        return Observation(Behavior.ADDRESS_DEPENDENT)
    return Observation(Behavior.ADDRESS_AND_PORT_DEPENDENT)


@contextlib.asynccontextmanager
async def open_udp(place: Place, own: str) -> AsyncIterator[UdpProber]:
    """Open a prober at an address of its own. Its sockets last as long as the block, so that
    no mapping is given away again meanwhile.
    """
    with contextlib.ExitStack() as sockets:
        async with background(place.gone) as tasks:
            yield UdpProber(place, own, tasks, sockets)
