"""The sizes that follow from a direction's condition: room for delayed packets, bucket and buffer."""

from __future__ import annotations

from math import ceil

from attrs import frozen

from patchbay.model.link import Impairment

__all__ = ["Shape", "shape_of"]

ETHERNET_HEADER = 14
USUAL_MTU = 1500

# Behind a rate is a buffer of 100 ms or the delay, whichever is more.
_BUFFER_MS = 100.0
# The bucket holds what passes in this time, so that a timer which is late by less costs no throughput.
_BUCKET_MS = 2.0
# netem's own default, and what it needs at most where nothing limits the rate: full frames at 10 Gbit/s.
_LEAST_LIMIT = 1000
_MOST_PACKETS_A_SECOND = 826_000
_LEAST_FRAME = 64


@frozen
class Shape:
    """`limit`, in packets, is the room of the delay line; the others are bytes, 0 without a rate.

    `burst` is what passes at once after a pause, `buffer` what may wait for its turn.
    """

    limit: int
    burst: int = 0
    buffer: int = 0


def shape_of(impairment: Impairment, mtu: int | None) -> Shape:
    """Return the shape for a link of an MTU (default 1500)."""
    frame = (mtu or USUAL_MTU) + ETHERNET_HEADER
    delay = ((impairment.latency_ms or 0) + (impairment.jitter_ms or 0)) / 1000
    kbit = impairment.trace.mean_kbit if impairment.trace else impairment.rate_kbit
    if kbit is None:
        return Shape(_LEAST_LIMIT + ceil(delay * _MOST_PACKETS_A_SECOND))
    # kbit/s are bits/ms.
    packets = min(kbit * 1000 / 8 / _LEAST_FRAME, _MOST_PACKETS_A_SECOND)
    given = impairment.buffer_kb
    buffer = given * 1000 if given else kbit * max(_BUFFER_MS, impairment.latency_ms or 0) / 8
    return Shape(
        limit=_LEAST_LIMIT + ceil(delay * packets),
        burst=max(2 * frame, ceil(kbit * _BUCKET_MS / 8)),
        buffer=max(2 * frame, ceil(buffer)),
    )
