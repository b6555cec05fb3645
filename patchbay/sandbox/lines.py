"""The lines of a stream."""

from __future__ import annotations

import trio

__all__ = ["Lines"]


class Lines:
    """Iterates over the lines of a stream, as text without line ends.

    It is not an async generator, which would have to be closed by whoever leaves the iteration early.
    """

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._unread = bytearray()
        self._ended = False

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> str:
        searched = 0
        while (end := self._unread.find(b"\n", searched)) < 0 and not self._ended:
            searched = len(self._unread)
            data = await self._stream.receive_some()
            self._ended = not data
            self._unread += data
        size = end + 1 or len(self._unread)
        if not size:
            raise StopAsyncIteration
        line = bytes(self._unread[:size])
        del self._unread[:size]
        return line.decode(errors="replace").removesuffix("\n").removesuffix("\r")
