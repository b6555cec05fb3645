"""Telling a sender which endpoint is seen of him, and asking to be told."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

import trio

from patchbay.services import stun_messages as stun

__all__ = ["background", "mapped_endpoint", "reflect"]

# RFC 8489 section 6.2.1 doubles from 500 ms; within a lab that is long.
_FIRST_WAIT = 0.2
_TRIES = 5


@contextlib.asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery of tasks that serve a block and end with it. The block's exception leaves it as itself."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except BaseException as error:
            failure = error  # carried round the nursery, which would wrap it in a group
        nursery.cancel_scope.cancel()
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
    """The endpoint that a STUN server sees of the socket. Raises `trio.TooSlowError` without an answer."""
    request = stun.Request(os.urandom(12))
    for attempt in range(_TRIES):
        await sock.sendto(stun.encode(request), server)
        with trio.move_on_after(_FIRST_WAIT * 2**attempt):
            while True:
                answer = stun.decode((await sock.recvfrom(2048))[0])
                if isinstance(answer, stun.Response) and answer.transaction == request.transaction:
                    return answer.mapped
    raise trio.TooSlowError(f"no answer from the STUN server or reflector at {server[0]} port {server[1]}")
