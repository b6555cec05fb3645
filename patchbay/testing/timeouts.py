"""Measuring the time for which a NAT keeps an idle UDP mapping (RFC 5780 section 4.6)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

import trio

from patchbay.services import stun_messages as stun
from patchbay.testing.place import Endpoint
from patchbay.testing.udp import UdpInside, UdpProber

__all__ = ["udp_timeout"]

_STEPS = 16


async def udp_timeout(
    prober: UdpProber, server: Endpoint, longest: float = 330.0
) -> tuple[float, float] | None:
    """Seconds after which an idle mapping was there, and after which it was gone.

    Each of many sockets asks once and falls silent; after a time of its own, another socket lets the server
    answer to the first one's mapping (RESPONSE-PORT). What is measured is thus a mapping with one packet out
    and one in, within one round trip; NATs often keep longer what has seen more traffic.

    Two rounds, of doubled times up to `longest` and of 16 steps within what is left: in all about twice the
    found time and a half. (`longest`, infinity) where all are there at the end. None where not even a fresh
    mapping can be reached so: the server does not know RESPONSE-PORT, or the NAT gives one host
    several outside addresses.
    """
    asker = await prober.inside()
    if await _round(prober, asker, server, [0.0]) != (0.0, math.inf):
        return None
    doubled = [float(2**n) for n in range(math.ceil(math.log2(longest)))]
    low, high = await _round(prober, asker, server, [*doubled, longest])
    low = max(0.0, low)  # the first round has found a mapping after no time
    if math.isinf(high):
        return low, high
    top = next((wait for wait in doubled if wait > low), longest)
    steps = [low + (top - low) * n / _STEPS for n in range(1, _STEPS)]
    closer = await _round(prober, asker, server, steps)
    return max(low, closer[0]), min(high, closer[1])


async def _round(
    prober: UdpProber, asker: UdpInside, server: Endpoint, waits: Iterable[float]
) -> tuple[float, float]:
    """Return the longest idle time that a mapping outlived, and the shortest that it did not."""
    low, high = -math.inf, math.inf

    async def measure(wait: float, nursery: trio.Nursery) -> None:
        nonlocal low, high
        inside = await prober.inside()
        answer = await inside.ask(server)
        if answer is None or answer.mapped is None:
            return  # lost, which says nothing about mappings
        silent_since = trio.current_time()
        await trio.sleep(wait)
        if await _reached(prober, asker, inside, server, answer.mapped[1]):
            low = max(low, wait)
        else:
            # The last try's packet says so; had the first ones been lost, only that one would.
            tried = trio.current_time() - silent_since - prober.pace.silence[-1]
            high = min(high, tried + answer.after)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for wait in waits:
            nursery.start_soon(measure, wait, nursery)
    return low, high


async def _reached(
    prober: UdpProber, asker: UdpInside, inside: UdpInside, server: Endpoint, port: int
) -> bool:
    """Return whether the server's answer to a question of `asker` comes to the mapping of `inside`."""
    request = stun.Request(os.urandom(12), response_port=port)
    with inside.awaiting(request.transaction) as awaited:
        for pause in prober.pace.silence:
            await asker.send(request, server)
            if await awaited.within(pause):
                return True
    return False
