"""The interface of every change of a lab."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol

from patchbay.layout.layout import Layout

__all__ = ["Change", "Event", "check_change"]

# The kind of an event, and its fields as plain values.
Event = tuple[str, Mapping[str, Any]]


class Change(Protocol):
    """One thing that can be done to a lab, as a frozen value.

    `action` is its name in files. `apply` gives the layout that comes out of it, and raises `SpecError`
    or `AllocationError` where the change is not possible.
    """

    action: ClassVar[str]

    def apply(self, layout: Layout) -> Layout: ...

    def describe(self) -> str:
        """Return a phrase such as "set the NAT of router 'home' to 'corporate'"."""
        ...

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        """Tell what `apply` has changed: it made `new` from `old`."""
        ...


def check_change(value: object) -> None:
    """Raise `TypeError` unless the value is a change."""
    if not isinstance(getattr(type(value), "action", None), str):
        raise TypeError(f"a change of patchbay.change is needed, not {value!r}; from_table() reads tables")
