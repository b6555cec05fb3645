"""Changing what a router does to packets: its NAT, its firewall, and what they remember."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from attrs import evolve, frozen

from patchbay.change.base import Event
from patchbay.config.encode import plain
from patchbay.layout.blocks import with_blocks
from patchbay.layout.find import find_router
from patchbay.layout.layout import Layout
from patchbay.model.firewall import Firewall, FirewallConfig
from patchbay.model.nat import Nat, NatConfig

__all__ = ["FlushNat", "SetFirewall", "SetNat"]


@frozen
class SetNat:
    """Replace a router's NAT. The new one knows of no connection and of no mapping."""

    action: ClassVar[str] = "set-nat"

    router: str
    nat: Nat | NatConfig

    def apply(self, layout: Layout) -> Layout:
        return with_blocks(_forgotten(layout, self.router, nat=self.nat))

    def describe(self) -> str:
        return f"set the NAT of router '{self.router}' to {_named(self.nat)}"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        if _policy(old, self.router).nat == self.nat:
            yield "nat_flushed", {"router": self.router}
        else:
            yield "nat_changed", {"router": self.router, "nat": plain(self.nat)}


@frozen
class FlushNat:
    """Let a router forget all connections and mappings."""

    action: ClassVar[str] = "flush-nat"

    router: str

    def apply(self, layout: Layout) -> Layout:
        return _forgotten(layout, self.router)

    def describe(self) -> str:
        return f"flush the NAT of router '{self.router}'"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        yield "nat_flushed", {"router": self.router}


@frozen
class SetFirewall:
    """Replace a router's firewall. NAT and established connections stay."""

    action: ClassVar[str] = "set-firewall"

    router: str
    firewall: Firewall | FirewallConfig

    def apply(self, layout: Layout) -> Layout:
        return _changed(layout, self.router, firewall=self.firewall)

    def describe(self) -> str:
        return f"set the firewall of router '{self.router}' to {_named(self.firewall)}"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        if _policy(old, self.router).firewall != self.firewall:
            yield "firewall_changed", {"router": self.router, "firewall": plain(self.firewall)}


def _named(policy: Nat | NatConfig | Firewall | FirewallConfig) -> str:
    return f"'{policy}'" if isinstance(policy, str) else "one of its own kind"


def _policy(layout: Layout, router: str) -> Any:
    return layout.policy(find_router(layout, router))


def _forgotten(layout: Layout, router: str, **fields: Any) -> Layout:
    """Return the layout in which the router has a new generation, which knows of no connection."""
    return _changed(layout, router, generation=_policy(layout, router).generation + 1, **fields)


def _changed(layout: Layout, router: str, **fields: Any) -> Layout:
    found = find_router(layout, router)
    policy = evolve(layout.policy(found), **fields)
    return evolve(layout, policies={**layout.policies, found.ns: policy})
