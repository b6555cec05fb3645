"""Changes of what a router does to packets: its NAT, its firewall, and what they remember."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve

from patchbay.config.converter import shared_converter, structure
from patchbay.errors import Problem, SpecError
from patchbay.layout.blocks import with_blocks
from patchbay.layout.layout import Layout
from patchbay.model.firewall import Firewall, FirewallConfig
from patchbay.model.nat import Nat, NatConfig

__all__ = ["forgotten", "with_firewall", "with_nat"]

Change = Callable[[Layout], Layout]


def with_nat(ns: str, nat: object) -> Change:
    """Another NAT, that knows of no connection. Raises `SpecError`."""
    wished = _read("nat", nat, Nat | NatConfig)
    return lambda layout: with_blocks(_forgotten(layout, ns, nat=wished))


def forgotten(ns: str) -> Change:
    """The same, that knows of no connection."""
    return lambda layout: _forgotten(layout, ns)


def with_firewall(ns: str, firewall: object) -> Change:
    """Another firewall. Raises `SpecError`."""
    wished = _read("firewall", firewall, Firewall | FirewallConfig)
    return lambda layout: _changed(layout, ns, firewall=wished)


def _read(name: str, value: object, kind: Any) -> Any:
    try:
        return structure(shared_converter(), value, kind)
    except SpecError as error:
        problems = [Problem(f"{name}.{p.path}" if p.path else name, p.message) for p in error.problems]
        raise SpecError(problems) from None


def _forgotten(layout: Layout, ns: str, **fields: Any) -> Layout:
    (generation,) = (policy.generation for of, policy in layout.policies.items() if of == ns)
    return _changed(layout, ns, generation=generation + 1, **fields)


def _changed(layout: Layout, ns: str, **fields: Any) -> Layout:
    changed = {of: evolve(policy, **fields) for of, policy in layout.policies.items() if of == ns}
    return evolve(layout, policies={**layout.policies, **changed})
