"""Arguments of a lab's callers, in the words of its files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from attrs import evolve

from patchbay.errors import Problem
from patchbay.lab.node import Node
from patchbay.lab.nodes import Iface, Router
from patchbay.layout.find import known
from patchbay.model.lab import LabSpec

__all__ = ["by_name", "iface_table", "look_up", "name_of"]

NodeT = TypeVar("NodeT", bound=Node)


def by_name(problem: Problem, spec: LabSpec) -> Problem:
    """Name a router in a problem by its name instead of its number, because a call adds one router."""
    if not spec.routers:
        return problem
    return evolve(problem, path=problem.path.replace("router[0]", f"router.{spec.routers[0].name}", 1))


def name_of(node: Node | str | None) -> str | None:
    if isinstance(node, Node):
        node._core.check_open()
        return node.name
    return node


def iface_table(to: Iface | Router | str) -> dict[str, Any]:
    given = to if isinstance(to, Iface) else Iface(to)
    router = given.router.name if isinstance(given.router, Router) else given.router
    return {"router": router, "link": given.link}


def look_up(name: str, kind: str, nodes: Iterable[NodeT]) -> NodeT:
    """Return the node of that name. Raises `KeyError` with close matches."""
    found = {node.name: node for node in nodes}
    if name not in found:
        raise KeyError(f"unknown {kind} '{name}'{known(name, found)}")
    return found[name]
