"""Changing the addresses of names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from attrs import evolve, frozen

from patchbay.change.base import Event
from patchbay.errors import Problem, SpecError
from patchbay.layout.find import find_node, known
from patchbay.layout.layout import Address, Layout
from patchbay.model.names import dns_name, host_name_problem

__all__ = ["AddName", "NameChange", "RemoveName", "SetNameserver", "rebased"]


@frozen
class AddName:
    """Add addresses to a name: in one node, or in every node where none is named."""

    action: ClassVar[str] = "add-name"

    name: str
    ips: tuple[Address, ...]
    node: str | None = None

    def apply(self, layout: Layout) -> Layout:
        if problem := host_name_problem(self.name):
            raise SpecError([Problem("name", problem)])
        if not self.ips:
            raise SpecError([Problem("ips", "found none; accepted: one IPv4 or IPv6 address or more")])
        scope = _scope(layout, self.node)
        addresses = dict.fromkeys((*layout.names.given(scope, self.name), *self.ips))
        return evolve(layout, names=layout.names.with_host(scope, self.name, tuple(addresses)))

    def describe(self) -> str:
        return f"give the name '{self.name}' {_listed(self.ips)} in {_where(self.node)}"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        return _difference(self, old, new)


@frozen
class RemoveName:
    """Remove addresses of a name, or all if none is given: in one node, or in every node."""

    action: ClassVar[str] = "remove-name"

    name: str
    ips: tuple[Address, ...] = ()
    node: str | None = None

    def apply(self, layout: Layout) -> Layout:
        scope = _scope(layout, self.node)
        given = layout.names.given(scope, self.name)
        if not given:
            names = layout.names.hosts.get(scope, {})
            raise SpecError([Problem("name", f"unknown name '{self.name}'{known(self.name, names)}")])
        if unknown := [ip for ip in self.ips if ip not in given]:
            raise SpecError(
                [Problem("ips", f"'{self.name}' has {_listed(given)}, and not {_listed(unknown)}")]
            )
        kept = tuple(ip for ip in given if self.ips and ip not in self.ips)
        return evolve(layout, names=layout.names.with_host(scope, self.name, kept))

    def describe(self) -> str:
        what = f" {_listed(self.ips)}" if self.ips else " its addresses"
        return f"take from the name '{self.name}'{what} in {_where(self.node)}"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        return _difference(self, old, new)


@frozen
class SetNameserver:
    """Set the name server that the processes of one node ask, or those of every node."""

    action: ClassVar[str] = "set-nameserver"

    ip: Address
    node: str | None = None

    def apply(self, layout: Layout) -> Layout:
        return evolve(layout, names=layout.names.with_nameserver(_scope(layout, self.node), self.ip))

    def describe(self) -> str:
        return f"ask the name server {self.ip} in {_where(self.node)}"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        yield from ()


NameChange = AddName | RemoveName | SetNameserver


def rebased(change: NameChange, layout: Layout) -> NameChange | None:
    """Return what is left of a change in a layout that others have changed meanwhile, or None.

    Its node or name may be gone, or some of the addresses that it removes.
    """
    if change.node is not None and layout.node(change.node) is None:
        return None
    if not isinstance(change, RemoveName):
        return change
    given = layout.names.given(change.node or "", change.name)
    left = tuple(ip for ip in change.ips if ip in given)
    return evolve(change, ips=left) if left or (given and not change.ips) else None


def _difference(change: AddName | RemoveName, old: Layout, new: Layout) -> Iterator[Event]:
    scope = change.node or ""
    before, after = (layout.names.given(scope, change.name) for layout in (old, new))
    for kind, ips, others in (("added", after, before), ("removed", before, after)):
        for ip in ips:
            if ip not in others:
                yield f"dns_entry_{kind}", {"scope": scope, "name": dns_name(change.name), "ip": str(ip)}


def _listed(ips: Iterable[Address]) -> str:
    return ", ".join(map(str, ips))


def _scope(layout: Layout, node: str | None) -> str:
    return find_node(layout, node).name if node is not None else ""


def _where(node: str | None) -> str:
    return f"'{node}'" if node is not None else "every node"
