"""Conditions of live links: setting them, breaking and restoring them, and what they have done so far."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from patchbay.change.base import Change
from patchbay.change.links import BreakRegionLink, LinkChange, link_key
from patchbay.errors import CommandFailed, LinkLostError
from patchbay.lab.losses import Losses
from patchbay.lab.session import Session
from patchbay.layout.layout import WireKey, WireLayout
from patchbay.model.link import Emulator
from patchbay.plan.conditions import relay_name
from patchbay.plan.view import emulator_of

if TYPE_CHECKING:
    from patchbay.lab.changes import Changes

__all__ = ["DEFAULT_REGIONS", "DirectionStats", "LinkStats", "Links"]

# One way, in ms: round figures. Great circles times 1.25 at 5 µs a kilometre (ITU-T Y.1541, its reckoning of
# routes) give 35 for New York to London and 68 to Tokyo; from London to Tokyo cables go the long way round.
DEFAULT_REGIONS = {("us", "eu"): 40.0, ("us", "asia"): 80.0, ("eu", "asia"): 120.0}


@frozen
class DirectionStats:
    """Counters of one direction of a link since it got a condition, in packets and bytes.

    `dropped` counts packets lost by `loss_pct`, by a full buffer, because the far side is missing, or because
    the relay did not read them in time. `queued` counts packets that are on their way now. `detail` has more
    counters, by the emulator's own names.
    """

    sent: int = 0
    sent_bytes: int = 0
    dropped: int = 0
    queued: int = 0
    detail: Mapping[str, int] = field(factory=dict)


@frozen
class LinkStats:
    """Both directions of a link; zero where nothing acts on it."""

    up: DirectionStats = DirectionStats()
    down: DirectionStats = DirectionStats()


class Links:
    """The links of a lab. What is raised leaves them as they were."""

    def __init__(self, changes: Changes, session: Session, losses: Losses) -> None:
        self._changes = changes
        self._session = session
        self._losses = losses

    # -- setting

    @contextlib.asynccontextmanager
    async def recovering(self, change: Change) -> AsyncIterator[None]:
        """Make way for a change of a link in this block.

        A lost link is cut first, so that the change brings the link back: the task that waits to do so would
        do it after the change. After a break, wait until the relay has lost what was on the link.
        """
        if not isinstance(change, LinkChange):
            yield
            return
        key = link_key(change, self._changes.visible)
        if not isinstance(change, BreakRegionLink):
            await self._losses.settle(key)
        yield
        if isinstance(change, BreakRegionLink):
            await self._empty(key)

    async def _empty(self, key: WireKey) -> None:
        """Wait until the relay of a link, if it has one, has lost what was on it.

        The relay hears of the break by netlink, when the machine lets it. Until then it would lose what
        comes after the link is restored as well.
        """
        wire = self._changes.applied.wires.get(key)
        if wire is None or not wire.broken:
            return  # the break waits for its batch
        with contextlib.suppress(KeyError, BrokenPipeError):
            await self._session.services.ask(wire.ns, relay_name(wire), {"flush": True})

    # -- looking

    async def stats(self, key: WireKey) -> LinkStats:
        """Return what each direction of a link has done. Raises `LinkLostError` if its relay is gone."""
        layout = self._changes.applied
        wire = layout.wires.get(key)
        if wire is None:
            return LinkStats()
        if emulator_of(layout, wire) is Emulator.USERSPACE:
            try:
                answer = await self._session.services.ask(wire.ns, relay_name(wire), {"stats": True})
            except (KeyError, BrokenPipeError):
                raise LinkLostError(f"nothing counts any more: the relay of {wire.title} ended") from None
            return LinkStats(*(_of_relay(answer["stats"][way]) for way in ("up", "down")))
        return await self._of_netem(wire)

    async def _of_netem(self, wire: WireLayout) -> LinkStats:
        argv = ["tc", "-s", "-j", "qdisc", "show"]
        answer = await self._session.sandbox.agent.request({"lanes": [["", [["exec", wire.ns, argv, ""]]]]})
        result = answer["results"][0][0]
        if result["status"] != 0:
            raise CommandFailed(
                intent=f"read the counters of {wire.title}",
                namespace=wire.ns,
                command=" ".join(argv),
                status=result["status"],
                stderr=result["err"],
                repeat=f"nsenter --net=/run/netns/{wire.ns} {' '.join(argv)}",
            )
        qdiscs = json.loads(result["out"])
        return LinkStats(*(_of_qdiscs(qdiscs, end.name) for end in (wire.near, wire.far)))


def _of_relay(counts: Mapping[str, int]) -> DirectionStats:
    dropped = sum(counts.get(name, 0) for name in ("lost", "dropped", "refused", "missed"))
    return DirectionStats(counts["sent"], counts["sent_bytes"], dropped, counts["queued"], counts)


def _of_qdiscs(qdiscs: list[dict[str, Any]], dev: str) -> DirectionStats:
    found = [qdisc for qdisc in qdiscs if qdisc.get("dev") == dev and qdisc["kind"] in ("netem", "tbf")]
    if not found:
        return DirectionStats()
    root = next(qdisc for qdisc in found if qdisc.get("root"))
    return DirectionStats(root["packets"], root["bytes"], root["drops"], root["qlen"])
