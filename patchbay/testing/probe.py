"""The common part of UDP and TCP probes: answers, waiting times, and the interface of a prober."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import frozen

from patchbay.model.nat import Behavior
from patchbay.services.stun_messages import Refusal, Response
from patchbay.testing.place import Endpoint

__all__ = ["Answer", "Hairpin", "Inside", "Observation", "Prober", "RetryTimes"]


@frozen
class Answer:
    """A server's answer, from where it came, and after how many seconds."""

    message: Response | Refusal
    source: Endpoint
    after: float

    @property
    def mapped(self) -> Endpoint | None:
        return self.message.mapped if isinstance(self.message, Response) else None

    @property
    def other(self) -> Endpoint | None:
        """Return the server's second endpoint, if it tells one at another address and another port.

        Servers exist that tell their own address, against RFC 5780 section 7.4, and so would make every
        filter look open.
        """
        other = self.message.other if isinstance(self.message, Response) else None
        if other is None or other[0] == self.source[0] or other[1] in (0, self.source[1]):
            return None
        return other


@frozen
class RetryTimes:
    """Waiting times for an answer, one for each request, in seconds.

    `asking` is for what will be answered: it doubles, as RFC 8489 section 6.2.1 has it, from less than its
    500 ms. `silence` is for what perhaps will not: several tries in a short time, against loss, and then
    one bounded wait.
    """

    asking: Sequence[float]
    silence: Sequence[float]

    @classmethod
    def of(cls, rto: float, tries: int, longest_rtt: float = 0.0) -> RetryTimes:
        """Return the paces of a path; 0.3 s is for a path's jitter, where its round trip is short."""
        asking = tuple(rto * 2**n for n in range(tries))
        return cls(asking, (*(rto / 2 for _ in range(tries - 1)), max(0.3, 4 * longest_rtt)))


@frozen
class Observation:
    """A behavior; or None, and why it is unknown."""

    behavior: Behavior | None
    note: str | None = None


@frozen
class Hairpin:
    """The result of a hairpin test: `works`, and by UDP the `source` endpoint that the receiver saw."""

    works: bool
    source: Endpoint | None = None


class Inside(Protocol):
    """An inside endpoint that sends from one port, and is there as long as its prober."""

    @property
    def endpoint(self) -> Endpoint: ...

    async def ask(self, server: Endpoint) -> Answer | None:
        """Return the server's answer; None if there is none."""


class Prober(Protocol):
    """A prober of one protocol."""

    pace: RetryTimes

    async def inside(self) -> Inside:
        """Return a fresh endpoint."""
        ...

    async def filtering(self, server: Endpoint, answer: Answer) -> Observation:
        """Find what may come in to a fresh endpoint that has sent to `server` alone, which gave `answer`."""
        ...

    async def hairpin(self, server: Endpoint) -> Hairpin | None:
        """Return whether two fresh endpoints reach each other by their mappings; None if unknown."""
