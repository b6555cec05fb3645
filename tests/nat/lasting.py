"""How tests find out how long a mapping lasts.

A busy machine delays packets, and its clocks are read later than a packet passes. So each time is taken from
the side that cannot accuse a NAT wrongly, and where the machine was too slow to judge, tests try again.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio
from attrs import frozen

from patchbay import Device, NatConfig
from patchbay.model.nat import Behavior
from tests.nat.talk import (
    Endpoint,
    Inside,
    Net,
    connect,
    drain,
    has_passed,
    hear,
    knock,
    port_of,
    text_of,
    udp,
)

__all__ = ["SHORT", "Renewed", "expired", "gets_in", "is_kept_out", "keep", "lasts"]

EI = Behavior.ENDPOINT_INDEPENDENT

# Random, so that a mapping that is made again is seen to be another (but for one time in 64,512).
SHORT = NatConfig(EI, EI, "random", udp_timeout=2, udp_stream_timeout=4, tcp_established_timeout=2)


@frozen
class Renewed:
    """A mapping, and two times between which the last packet passed that kept it."""

    outside: Endpoint
    earliest: float
    latest: float


Step = Callable[[], Awaitable[None]]
# None: the machine was too slow.
Renew = Callable[[Inside], Awaitable[Renewed | None]]


async def gets_in(world: Net, end: Inside, outside: Endpoint, before: float = math.inf) -> bool:
    """Wait until a stranger has got in, another one each time. False: it was not tried `before` that time."""
    if end.protocol == "tcp":
        return await connect(world.stranger, outside, before=before)
    with udp(world.stranger) as sock:
        question = text_of((str(world.stranger.ip), port_of(sock)))
        await sock.sendto(question, outside)
        in_time = trio.current_time() < before
        while in_time and (await hear(end.udp))[0] != question:
            pass  # that was the question of an earlier stranger, who was too late
    return in_time


async def is_kept_out(world: Net, end: Inside, outside: Endpoint) -> bool:
    """Whether a stranger, another one each time, does not get in."""
    if end.protocol == "tcp":
        return await knock(world.stranger, outside) == "silence"
    with udp(world.stranger) as sock:
        await sock.sendto(b"in?", outside)
        await has_passed(world.stranger, outside[0])
        return await drain(end.udp) == []


async def lasts(world: Net, host: Device, protocol: str, renew: Renew, seconds: float) -> bool:
    """Check that a mapping is open until `seconds` after its last packet, and not longer.

    One mapping is tried shortly before that, and another one shortly after, because a connection that
    comes in may keep its mapping.
    """
    judged: list[bool] = []

    async def is_open() -> None:
        end = Inside(host, protocol)
        renewed = await renew(end)
        if renewed:
            await trio.sleep_until(renewed.earliest + seconds - 0.5)  # shortly before it closes
            before = renewed.earliest + seconds - 0.1
        judged.append(renewed is not None and await gets_in(world, end, renewed.outside, before))

    async def is_closed() -> None:
        end = Inside(host, protocol)
        renewed = await renew(end)
        if renewed:
            # Shortly after it has closed; the kernel may acknowledge by TCP what has been read before.
            await trio.sleep_until(renewed.latest + seconds + (1 if protocol == "tcp" else 0.3))
            assert await is_kept_out(world, end, renewed.outside)
            # And the next one is another.
            assert protocol == "tcp" or await end.seen_by(world.endpoints[0]) != renewed.outside
        judged.append(renewed is not None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(is_open)
        nursery.start_soon(is_closed)
    return all(judged)


async def keep(since: float, seconds: float, send: Step, check: Step) -> float | None:
    """Send a packet every 0.5 s for so long, and check what becomes of each. Return the time before the last.

    None: the machine was so slow that a mapping may have expired between two packets.
    """
    sent = since
    while sent < since + seconds:
        await trio.sleep(0.5)  # the pace of the sender
        last, sent = sent, trio.current_time()
        await send()
        if expired(last):
            return None
        await check()
    return sent


def expired(sent: float) -> bool:
    return trio.current_time() >= sent + SHORT.udp_timeout
