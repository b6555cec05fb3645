"""Names of steps and of what they capture: `id.capture`."""

from __future__ import annotations

import re

from attrs import frozen

from patchbay.config.converter import Unacceptable

__all__ = ["RESERVED", "Ref", "name_problem", "parse_ref"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")

# Variables such as ${ip.server} begin with these.
RESERVED = frozenset({"ip", "ip6", "binary", "group", "matrix"})


@frozen
class Ref:
    """A capture of a step."""

    id: str
    capture: str

    def __str__(self) -> str:
        return f"{self.id}.{self.capture}"


def parse_ref(text: str) -> Ref:
    """Return the capture that `id.capture` names. Raises `Unacceptable`."""
    name, dot, capture = text.partition(".")
    if not dot or not _NAME.fullmatch(name) or not _NAME.fullmatch(capture):
        raise Unacceptable(f"found {text!r}; accepted: id.capture")
    return Ref(name, capture)


def name_problem(name: str, reserved: frozenset[str] = frozenset()) -> str | None:
    """Why `name` cannot be an id (with `reserved=RESERVED`) or a capture's name, or None if it can."""
    if name in reserved:
        return f"found {name!r}, with which variables begin; accepted: any other name"
    if not _NAME.fullmatch(name):
        return f"found {name!r}; accepted: letters, digits, '_' and '-', not beginning with '-'"
    return None
