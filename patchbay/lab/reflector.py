"""UDP echo and STUN: answering with the endpoint of a sender, and asking for one's own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import trio

from patchbay.errors import PatchbayError
from patchbay.services import stun_messages as stun

__all__ = ["Background", "background", "mapped_endpoint", "reflect"]

# RFC 8489 section 6.2.1 doubles from 500 ms; within a lab that is long.
_FIRST_WAIT = 0.2
_TRIES = 5


# Returns the error of using the nodes of a block now, or None while they can be used.
Gone = Callable[[], PatchbayError | None]


class Background:
    """Tasks that serve a block and end with it."""

    def __init__(self, nursery: trio.Nursery, gone: Gone) -> None:
        self._nursery = nursery
        self._gone = gone
        self.error: Exception | None = None

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: object) -> None:
        """Start a task. When its socket is closed with the node, the block ends with the node's error."""
        self._nursery.start_soon(self._run, async_fn, *args)

    async def _run(self, async_fn: Callable[..., Awaitable[object]], *args: object) -> None:
        try:
            await async_fn(*args)
        except trio.ClosedResourceError as error:
            self.error = self._gone() or error
            self._nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def background(gone: Gone = lambda: None) -> AsyncIterator[Background]:
    """Serve a block by tasks. The exception of the block, or of its node, leaves it as itself."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        tasks = Background(nursery, gone)
        try:
            yield tasks
        except BaseException as error:
            failure = error  # carried round the nursery, which would wrap it in a group
        nursery.cancel_scope.cancel()
    if tasks.error and (failure is None or isinstance(failure, trio.Cancelled)):
        raise tasks.error
    if failure is not None:
        raise failure


async def reflect(sock: trio.socket.SocketType) -> None:
    """Send everything back; to a STUN Binding request, answer with the endpoint that it came from."""
    while True:
        data, sender = await sock.recvfrom(65535)
        request = stun.decode(data)
        if isinstance(request, stun.Request) and not request.unknown:
            data = stun.encode(stun.Response(request.transaction, (sender[0], sender[1])))
        with contextlib.suppress(OSError):  # an ICMP error about an answer sent before
            await sock.sendto(data, sender)


async def mapped_endpoint(sock: trio.socket.SocketType, server: tuple[str, int]) -> tuple[str, int]:
    """Return the endpoint that a STUN server sees of the socket. Raises `trio.TooSlowError`."""
    request = stun.Request(os.urandom(12))
    for attempt in range(_TRIES):
        await sock.sendto(stun.encode(request), server)
        with trio.move_on_after(_FIRST_WAIT * 2**attempt):
            while True:
                answer = stun.decode((await sock.recvfrom(2048))[0])
                if isinstance(answer, stun.Response) and answer.transaction == request.transaction:
                    return answer.mapped
    raise trio.TooSlowError(f"no answer from the STUN server or reflector at {server[0]} port {server[1]}")
