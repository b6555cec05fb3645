"""What the tests on a real kernel share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import trio

import patchbay
from patchbay.lab.lab import Lab

# Two homes and a server: enough for NAT, IPv6 and isolation.
HOME: dict[str, Any] = {
    "router": [
        {"name": "dc", "preset": "datacenter"},
        {"name": "home", "preset": "home"},
    ],
    "device": {
        "server": {"eth0": {"gateway": "dc"}},
        "laptop": {"eth0": {"gateway": "home"}},
    },
}


@contextlib.asynccontextmanager
async def home_lab(**options: Any) -> AsyncIterator[Lab]:
    """`HOME`, open, with a bound on the whole test."""
    with trio.fail_after(60):
        async with patchbay.open_lab(HOME, **options) as lab:
            yield lab


async def serve_echo(
    port: int = 8000, *, peers: list[Any] | None = None, task_status: Any = trio.TASK_STATUS_IGNORED
) -> None:
    """A TCP echo server that notes who came; started once it listens."""

    async def echo(stream: trio.SocketStream) -> None:
        if peers is not None:
            peers.append(stream.socket.getpeername())
        async for data in stream:
            await stream.send_all(data)

    await trio.serve_tcp(echo, port, task_status=task_status)
