"""Conditions of live links: setting them, breaking and restoring them, and what they have done so far."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from patchbay.config.converter import shared_converter, structure
from patchbay.errors import CommandFailed, LinkLostError, Problem, SpecError
from patchbay.lab.session import Session
from patchbay.layout.layout import Layout, WireKey, WireLayout
from patchbay.layout.wires import combined, condition_of, region_key, with_broken, with_conditions
from patchbay.model.lab import RegionLinkSpec
from patchbay.model.link import PERFECT, Condition, Direction, Emulator, LinkCondition, RegionLink, merged
from patchbay.plan.conditions import emulator_of, relay_name

if TYPE_CHECKING:
    from patchbay.lab.changes import Changes

__all__ = ["DEFAULT_REGIONS", "DirectionStats", "LinkStats", "Links"]

# One way, in ms: round figures. Great circles times 1.25 at 5 µs a kilometre (ITU-T Y.1541, its reckoning of
# routes) give 35 for New York to London and 68 to Tokyo; from London to Tokyo cables go the long way round.
DEFAULT_REGIONS = {("us", "eu"): 40.0, ("us", "asia"): 80.0, ("eu", "asia"): 120.0}


@frozen
class DirectionStats:
    """What one direction of a link has done since it has had a condition, in packets and bytes.

    `dropped` counts those lost by `loss_pct`, by a full buffer, or for want of the far side; `queued` are
    on their way now. `detail` has what else the emulator counts, by its own names.
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

    def __init__(self, changes: Changes[Any], session: Session, event: Callable[..., None]) -> None:
        self._changes = changes
        self._session = session
        self._event = event
        self._lost: dict[WireKey, str] = {}

    # -- setting

    async def set(self, key: WireKey, condition: object, direction: object = Direction.BOTH) -> None:
        """Put a link into a condition; None clears it. What a condition does not say stays as it is."""
        ways = _direction(direction)
        wished = _wished(condition) if condition is not None else None

        def change(layout: Layout) -> Layout:
            old = condition_of(layout, key)
            base = Condition(**dict.fromkeys(ways.ways, PERFECT.up) | _others(old, ways))
            return _put(layout, key, base if wished is None else merged(old, wished, ways))

        async with self._found_again(key):
            await self._changes.alter(change)

    @contextlib.asynccontextmanager
    async def _found_again(self, key: WireKey) -> AsyncIterator[None]:
        """What is done in here brings a link back that was lost."""
        reason = self._lost.get(key)
        if reason is None:
            yield
            return
        await self._cut(key)  # or it would come after what is done here
        del self._lost[key]
        try:
            yield
        except BaseException:
            self._lost[key] = reason
            raise

    async def link_regions(self, a: str, b: str, link: object) -> None:
        """Link two regions, or change their link."""
        if a == b:
            raise SpecError([Problem("regions", f"found '{a}' twice; accepted: two regions")])
        spec = RegionLinkSpec(a, b, structure(shared_converter(), link, RegionLink))
        # A distance, good or degraded, is all that there is to say of a way.
        whole = isinstance(link, int | float | RegionLink)

        def change(layout: Layout) -> Layout:
            key = region_key(layout, a, b)
            old = PERFECT if whole else condition_of(layout, key)
            return _put(layout, key, merged(old, spec.between(key[1])))

        async with self._found_again(region_key(self._changes.present, a, b)):
            await self._changes.alter(change)

    async def break_regions(self, a: str, b: str, *, broken: bool) -> None:
        """Cut the link of two regions, or mend it."""
        key = region_key(self._changes.present, a, b)
        if key not in self._changes.present.wires:
            raise SpecError([Problem("regions", f"'{a}' and '{b}' are not linked; accepted: linked ones")])
        async with self._found_again(key) if not broken else contextlib.nullcontext():
            await self._changes.alter(partial(with_broken, key=key, broken=broken))
        if broken:
            await self._empty(key)

    async def _empty(self, key: WireKey) -> None:
        """Wait until the relay of a link, if it has one, has lost what was on it.

        The relay hears of the break by netlink, when the machine lets it. Until then it would lose what
        comes after the link is restored as well.
        """
        wire = self._changes.present.wires[key]
        with contextlib.suppress(KeyError, BrokenPipeError):
            await self._session.helpers.ask(wire.ns, relay_name(wire), {"flush": True})

    # -- looking

    def condition(self, key: WireKey) -> Condition:
        """The present condition of a link."""
        return condition_of(self._changes.present, key)

    async def stats(self, key: WireKey) -> LinkStats:
        """What each direction of a link has done. Raises `LinkLostError` for one whose relay is gone."""
        layout = self._changes.standing
        wire = layout.wires.get(key)
        if wire is None:
            return LinkStats()
        if emulator_of(layout, wire) is Emulator.USERSPACE:
            try:
                answer = await self._session.helpers.ask(wire.ns, relay_name(wire), {"stats": True})
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

    # -- losing

    def helper_died(self, ns: str, name: str, words: str) -> None:
        """A process of the lab's own ended: maybe a relay."""
        for key, wire in self._changes.standing.wires.items():
            if (wire.ns, relay_name(wire)) == (ns, name):
                reason = f"the relay of {wire.title} ended" + (f":\n{words}" if words else " (killed?)")
                self._lost[key] = reason
                names = ("a", "b") if key[0] == "regions" else ("node", "iface")
                where = dict(zip(names, (*key[1:], "downlink"), strict=False))
                self._event("link_down", **where, reason=reason)
                self._session.start(self._cut, key)

    async def _cut(self, key: WireKey) -> None:
        """Take the carrier of a link that nothing crosses any more, so that everybody sees it."""

        def change(layout: Layout) -> Layout:
            return with_broken(layout, key, broken=True, lost=True) if key in self._lost else layout

        await self._changes.alter(change)

    def check_all_there(self) -> None:
        """Raises `LinkLostError` if a link was lost that nobody has set anew."""
        if self._lost:
            raise LinkLostError("\n".join(self._lost.values()))


def _put(layout: Layout, key: WireKey, condition: Condition) -> Layout:
    """The layout with that link in that condition. Raises `SpecError` for values that do not go together."""
    if problems := list(combined(condition, "link")):
        raise SpecError(problems)
    return with_conditions(layout, {key: condition})


def _others(old: Condition, direction: Direction) -> dict[str, Any]:
    return {way: impairment for way, impairment in old.ways if way not in direction.ways}


def _wished(condition: object) -> LinkCondition:
    return structure(shared_converter(), condition, LinkCondition)


def _direction(direction: object) -> Direction:
    if not isinstance(direction, str) or direction not in list(Direction):
        accepted = ", ".join(f"'{each}'" for each in Direction)
        raise SpecError([Problem("direction", f"found {direction!r}; accepted: {accepted}")])
    return Direction(direction)


def _of_relay(counts: Mapping[str, int]) -> DirectionStats:
    dropped = sum(counts.get(name, 0) for name in ("lost", "dropped", "refused", "missed"))
    return DirectionStats(counts["sent"], counts["sent_bytes"], dropped, counts["queued"], counts)


def _of_qdiscs(qdiscs: list[dict[str, Any]], dev: str) -> DirectionStats:
    found = [qdisc for qdisc in qdiscs if qdisc.get("dev") == dev and qdisc["kind"] in ("netem", "tbf")]
    if not found:
        return DirectionStats()
    root = next(qdisc for qdisc in found if qdisc.get("root"))
    return DirectionStats(root["packets"], root["bytes"], root["drops"], root["qlen"])
