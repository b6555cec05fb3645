"""What the tests on a real kernel share."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import trio

import patchbay
from patchbay.lab.lab import Lab
from tests.patience import DEADLINE, await_until

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


# One answer. ping sends a packet a second until then, because a flood in another lab may overflow the queue
# that all labs share (netdev_max_backlog). It also ends with an error that a router sends (ping(8)).
PING = ("ping", "-n", "-c1", f"-w{DEADLINE:g}")


@contextlib.asynccontextmanager
async def home_lab(**options: Any) -> AsyncIterator[Lab]:
    """`HOME`, open."""
    async with patchbay.open_lab(HOME, **options) as lab:
        yield lab


async def reaches(source: patchbay.Node, target: Any, *options: str) -> bool:
    """Return False when an ICMP error says so. Packets that are dropped in silence take `DEADLINE`."""
    argv = [*PING, *options, str(target)]
    return (await source.run(argv, check=False, capture_stdout=True, capture_stderr=True)).returncode == 0


async def is_running_in(node: patchbay.Node, command: str) -> bool:
    """Tell whether a process with this command line runs in the lab."""
    done = await node.run(["pgrep", "-fx", re.escape(command)], check=False, capture_stdout=True)
    return done.returncode == 0


async def until_ended_in(node: patchbay.Node, command: str) -> None:
    async def ended() -> bool:
        return not await is_running_in(node, command)

    await await_until(ended, f"the end of {command!r}")


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
