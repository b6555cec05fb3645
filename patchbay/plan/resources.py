"""The kernel resources of a lab, as one table; a change is the difference of two tables.

A *resource* is kept by what it is about, with the commands that bring it about and those that take it away.
Building, changing and undoing are one, because each is a difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum

from attrs import Factory, field, frozen

from patchbay.tools.commands import CheckQdiscs, Command

__all__ = ["GONE", "Difference", "Key", "Phase", "Resource", "Resources", "Table", "difference"]

# What unmaking may find done already, in the words of ip and tc.
GONE = (
    *("Cannot find device", "No such process", "No such file or directory", "FIB table does not exist"),
    "Cannot assign requested address",
    *("Cannot delete qdisc with handle of zero", "Invalid handle"),
    *("Failed to find specified qdisc", "Failed to find qdisc", "Cannot find specified qdisc"),
)

# Such as ("link", namespace, interface): the kind, and what tells one from another.
Key = tuple[str, ...]


class Phase(IntEnum):
    """The phase of a plan in which a resource is made; `plan.change` says what each phase waits for."""

    NAMESPACE = 0
    SETTING = 1
    BRIDGE = 2  # with the ends of wires, before the uplinks whose ports belong to bridges
    LINK = 3
    CONFIGURE = 4
    ACT = 5
    LEAD = 6
    RULES = 7
    NAMES = 8


@frozen
class Resource:
    """One thing or setting in the kernel.

    `make` brings it about, also over another value of the same key, unless it is `fixed`: then the old one
    is unmade first. `again` is what replaces another value, where `make` cannot; what is `within` the old
    one is gone then. `unmake` is empty where nothing has to be taken away, or where it dies with something.

    `within` are the resources that it dies with; a `process` does not, and is ended before them.
    `comes_with` is the resource whose making brings it about too. `late`: it is unmade when nothing uses it
    any more, and not before anything is made. `identity` is what tells two values apart (default: `make`).
    `check` reads it back.
    """

    make: tuple[Command, ...]
    unmake: tuple[Command, ...] = ()
    phase: Phase = Phase.CONFIGURE
    within: tuple[Key, ...] = ()
    comes_with: Key | None = None
    again: tuple[Command, ...] = ()
    fixed: bool = False
    late: bool = False
    process: bool = False
    identity: object = field(default=Factory(lambda resource: resource.make, takes_self=True))
    check: CheckQdiscs | None = None


Resources = Iterator[tuple[Key, Resource]]
Table = Mapping[Key, Resource]


@frozen
class Difference:
    """The difference of two tables: resources to unmake, and commands that make others, by key."""

    unmade: Mapping[Key, Resource]
    made: Mapping[Key, tuple[Command, ...]]
    # All that is not there any more in between: unmade, or dead with something that was.
    gone: frozenset[Key]


def difference(old: Table, new: Table, *, undoing: bool) -> Difference:
    """Return what turns `old` into `new`.

    `undoing`: it is not known which parts of `old` are there, because the change to it failed somewhere.
    """
    removed = [key for key, resource in old.items() if _goes(resource, new.get(key))]
    emptied = [key for key, resource in old.items() if _is_replaced(resource, new.get(key))]
    dead = _dead(old, [*removed, *emptied])
    gone = dead | set(removed)
    unmade = {
        key: resource
        for key, resource in old.items()
        if key in gone and (resource.process or key not in dead) and resource.unmake
    }
    kept = {key: resource for key, resource in old.items() if key not in gone}
    wanted = {
        key: resource
        for key, resource in new.items()
        if key not in kept or kept[key].identity != resource.identity
    }
    made = {
        key: resource.again if resource.again and (undoing or key in kept) else resource.make
        for key, resource in wanted.items()
        if resource.comes_with not in wanted
    }
    return Difference(unmade, made, frozenset(gone))


def _goes(old: Resource, new: Resource | None) -> bool:
    return new is None or (old.fixed and old.identity != new.identity)


def _is_replaced(old: Resource, new: Resource | None) -> bool:
    return new is not None and bool(new.again) and old.identity != new.identity


def _dead(table: Table, causes: Iterable[Key]) -> set[Key]:
    """Return what is within the causes, directly or not."""
    inside: dict[Key, list[Key]] = {}
    for key, resource in table.items():
        for parent in resource.within:
            inside.setdefault(parent, []).append(key)
    dead: set[Key] = set()
    waiting = [*causes]
    while waiting:
        for key in inside.get(waiting.pop(), ()):
            if key not in dead:
                dead.add(key)
                waiting.append(key)
    return dead
