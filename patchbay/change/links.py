"""Changing the conditions of links, and breaking and restoring links between regions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from attrs import evolve, frozen

from patchbay.change.base import Event
from patchbay.change.fields import link_fields, link_place
from patchbay.errors import Problem, SpecError
from patchbay.layout.find import find_device, find_iface, find_region, find_router
from patchbay.layout.layout import Layout, WireKey
from patchbay.layout.wires import combined, condition_of, region_key, with_broken, with_conditions
from patchbay.model.lab import RegionLinkSpec
from patchbay.model.link import LINK_PRESETS, Direction, Emulator, LinkCondition, LinkPreset, merged

__all__ = [
    "BreakRegionLink",
    "LinkChange",
    "LinkRegions",
    "LoseLink",
    "RestoreRegionLink",
    "SetDownlinkCondition",
    "SetLinkCondition",
    "UseEmulator",
    "link_key",
]

# A perfect link, with nothing left unsaid.
CLEARED = LINK_PRESETS[LinkPreset.LAN]


@frozen
class SetLinkCondition:
    """Put a device's link into a condition. What the condition does not say stays as it is.

    Without a condition the link is cleared. `direction` limits the change to packets that go "up", away
    from the device, or "down".
    """

    action: ClassVar[str] = "set-link-condition"

    device: str
    interface: str
    condition: LinkCondition = CLEARED
    direction: Direction = Direction.BOTH

    @property
    def key(self) -> WireKey:
        return "link", self.device, self.interface

    def apply(self, layout: Layout) -> Layout:
        find_iface(find_device(layout, self.device), self.interface)
        return _with_condition(layout, self.key, self.condition, self.direction)

    def describe(self) -> str:
        place = f"the link of device '{self.device}' on {self.interface}"
        return _setting(place, self.condition, self.direction)

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        yield from _condition_events(self.key, old, new)


@frozen
class SetDownlinkCondition:
    """Put the way between a router and everything below it into a condition, as `SetLinkCondition` does."""

    action: ClassVar[str] = "set-downlink-condition"

    router: str
    condition: LinkCondition = CLEARED
    direction: Direction = Direction.BOTH

    @property
    def key(self) -> WireKey:
        return "downlink", self.router

    def apply(self, layout: Layout) -> Layout:
        find_router(layout, self.router)
        return _with_condition(layout, self.key, self.condition, self.direction)

    def describe(self) -> str:
        return _setting(f"the downlink of router '{self.router}'", self.condition, self.direction)

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        yield from _condition_events(self.key, old, new)


@frozen
class LinkRegions:
    """Link two regions, or change the condition of their link; `up` is from `a` to `b`."""

    action: ClassVar[str] = "link-regions"

    a: str
    b: str
    condition: LinkCondition

    def apply(self, layout: Layout) -> Layout:
        if self.a == self.b:
            raise SpecError([Problem("regions", f"found '{self.a}' twice; accepted: two regions")])
        key = _regions(layout, self.a, self.b)
        condition = RegionLinkSpec(self.a, self.b, self.condition).between(key[1])
        return _with_condition(layout, key, condition)

    def describe(self) -> str:
        return f"link regions '{self.a}' and '{self.b}'"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        key = region_key(new, self.a, self.b)
        if key not in old.wires or condition_of(old, key) != condition_of(new, key):
            yield "region_linked", link_fields(new, key)
        if _broken(old, key) and not _broken(new, key):
            yield "region_link_restored", link_place(key)


@frozen
class BreakRegionLink:
    """Cut the link of two regions. Packets on the link are lost, and none go another way."""

    action: ClassVar[str] = "break-region-link"

    a: str
    b: str

    def apply(self, layout: Layout) -> Layout:
        return with_broken(layout, _linked(layout, self.a, self.b), broken=True)

    def describe(self) -> str:
        return f"break the link of regions '{self.a}' and '{self.b}'"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        key = region_key(new, self.a, self.b)
        if not _broken(old, key):
            yield "region_link_broken", link_place(key)


@frozen
class RestoreRegionLink:
    """Mend a link of two regions that was cut."""

    action: ClassVar[str] = "restore-region-link"

    a: str
    b: str

    def apply(self, layout: Layout) -> Layout:
        return with_broken(layout, _linked(layout, self.a, self.b), broken=False)

    def describe(self) -> str:
        return f"restore the link of regions '{self.a}' and '{self.b}'"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        key = region_key(new, self.a, self.b)
        if _broken(old, key):
            yield "region_link_restored", link_place(key)


@frozen
class LoseLink:
    """Cut a link whose relay has ended, so that everybody sees that nothing crosses the link any more."""

    action: ClassVar[str] = "lose-link"

    key: WireKey

    def apply(self, layout: Layout) -> Layout:
        return with_broken(layout, self.key, broken=True, lost=True)

    def describe(self) -> str:
        return f"cut the link {' '.join(self.key[1:])}, whose relay has ended"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        if self.key[0] == "regions" and not _broken(old, self.key):
            yield "region_link_broken", link_place(self.key)


@frozen
class UseEmulator:
    """Let the kernel's netem, or relays, put links into their conditions."""

    action: ClassVar[str] = "use-emulator"

    emulator: Emulator

    def apply(self, layout: Layout) -> Layout:
        return evolve(layout, emulator=self.emulator)

    def describe(self) -> str:
        return f"let '{self.emulator}' put links into their conditions"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        yield from ()


LinkChange = SetLinkCondition | SetDownlinkCondition | LinkRegions | BreakRegionLink | RestoreRegionLink


def link_key(change: LinkChange, layout: Layout) -> WireKey:
    """Return the key of the link that is changed."""
    if isinstance(change, SetLinkCondition | SetDownlinkCondition):
        return change.key
    return region_key(layout, change.a, change.b)


def _with_condition(
    layout: Layout, key: WireKey, new: LinkCondition, direction: Direction = Direction.BOTH
) -> Layout:
    """Return the layout with that link in that condition.

    Raises `SpecError` for values that do not go together.
    """
    condition = merged(condition_of(layout, key), new, direction)
    if problems := list(combined(condition, "condition")):
        raise SpecError(problems)
    return with_conditions(layout, {key: condition})


def _setting(place: str, condition: LinkCondition, direction: Direction) -> str:
    given: dict[str, Any] = condition.set_values()
    values = ", ".join(f"{key}={value}" for key, value in given.items())
    only = "" if direction is Direction.BOTH else f", {direction} only"
    return f"clear {place}{only}" if condition == CLEARED else f"set {place} to {values}{only}"


def _condition_events(key: WireKey, old: Layout, new: Layout) -> Iterator[Event]:
    if condition_of(old, key) != condition_of(new, key):
        yield "link_condition_changed", link_fields(new, key)
    if _broken(old, key) and not _broken(new, key):
        yield "service_restored", {"service": "relay", **link_place(key)}


def _broken(layout: Layout, key: WireKey) -> bool:
    wire = layout.wires.get(key)
    return wire is not None and wire.broken


def _regions(layout: Layout, a: str, b: str) -> WireKey:
    for name in (a, b):
        find_region(layout, name)
    return region_key(layout, a, b)


def _linked(layout: Layout, a: str, b: str) -> WireKey:
    key = _regions(layout, a, b)
    if key not in layout.wires:
        raise SpecError([Problem("regions", f"'{a}' and '{b}' are not linked; accepted: linked ones")])
    return key
