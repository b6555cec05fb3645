"""Changing what names stand for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from attrs import evolve, frozen

from patchbay.change.base import Event
from patchbay.errors import Problem, SpecError
from patchbay.layout.find import find_node
from patchbay.layout.layout import Address, Layout

__all__ = ["NameChange", "SetName", "SetNameserver"]


@frozen
class SetName:
    """Let a name stand for an address: in one node, or in all of them where none is named."""

    action: ClassVar[str] = "set-name"

    name: str
    ip: Address
    node: str | None = None

    def apply(self, layout: Layout) -> Layout:
        if not self.name or not self.name.isprintable() or any(c.isspace() or c == "#" for c in self.name):
            what = f"{self.name!r} cannot be in a hosts file; accepted: a host name"
            raise SpecError([Problem("name", what)])
        return evolve(layout, names=layout.names.with_host(_scope(layout, self.node), self.name, self.ip))

    def describe(self) -> str:
        return f"let '{self.name}' stand for {self.ip} in {_where(self.node)}"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        yield "dns_entry_added", {"scope": self.node or "", "name": self.name, "ip": str(self.ip)}


@frozen
class SetNameserver:
    """Name the name server that is asked: by the processes of one node, or of all where none is named."""

    action: ClassVar[str] = "set-nameserver"

    ip: Address
    node: str | None = None

    def apply(self, layout: Layout) -> Layout:
        return evolve(layout, names=layout.names.with_nameserver(_scope(layout, self.node), self.ip))

    def describe(self) -> str:
        return f"ask the name server {self.ip} in {_where(self.node)}"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        yield from ()


NameChange = SetName | SetNameserver


def _scope(layout: Layout, node: str | None) -> str:
    return find_node(layout, node).name if node is not None else ""


def _where(node: str | None) -> str:
    return f"'{node}'" if node is not None else "every node"
