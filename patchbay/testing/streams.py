"""STUN messages of a TCP connection."""

from __future__ import annotations

import trio

from patchbay.services import stun_messages as stun

__all__ = ["receive"]

_LONGEST_BODY = 2048  # bytes; messages of STUN have a few hundred at most


async def receive(stream: trio.SocketStream) -> stun.Message | None:
    """Return the next message of a connection (RFC 8489 section 6.2.2); None at its end or for no message."""
    header = await _exactly(stream, stun.HEADER)
    length = stun.body_length(header) if header else None
    if header is None or length is None or length > _LONGEST_BODY:
        return None
    body = await _exactly(stream, length)
    return None if body is None else stun.decode(header + body)


async def _exactly(stream: trio.SocketStream, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        if not more:
            return None
        data += more
    return data
