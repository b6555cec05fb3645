"""Assertions: `id.capture OP value`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum

from attrs import frozen

from patchbay.config.converter import Unacceptable
from patchbay.sim.spec.refs import Ref, parse_ref

__all__ = ["Check", "NotANumber", "Op", "holds", "number", "parse_check"]

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Op(StrEnum):
    """The comparison of a captured value. The last four need numbers on both sides."""

    EQUAL = "=="
    UNEQUAL = "!="
    CONTAINS = "contains"
    MATCHES = "matches"
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="


_ORDER: dict[Op, Callable[[Decimal, Decimal], bool]] = {
    Op.LESS: operator.lt,
    Op.AT_MOST: operator.le,
    Op.MORE: operator.gt,
    Op.AT_LEAST: operator.ge,
}
_ACCEPTED = f"accepted: id.capture OP value, OP one of {' '.join(Op)}"


class NotANumber(ValueError):
    """A side of a comparison that wants numbers is something else."""


@frozen
class Check:
    """One assertion."""

    ref: Ref
    op: Op
    value: str

    def __str__(self) -> str:
        return f"{self.ref} {self.op} {self.value}"


def parse_check(text: str) -> Check:
    """Return the assertion in a text. Raises `Unacceptable`."""
    left, op, value = (*text.strip().split(maxsplit=2), "", "", "")[:3]
    if op not in list(Op):
        raise Unacceptable(f"found {text!r}; {_ACCEPTED}")
    check = Check(parse_ref(left), Op(op), value)
    if check.op is Op.MATCHES:
        try:
            re.compile(check.value)
        except re.error as error:
            raise Unacceptable(f"found {check.value!r}, which is no regular expression: {error}") from None
    if check.op in _ORDER and not _NUMBER.fullmatch(check.value):
        raise Unacceptable(f"found {check.value!r} behind '{check.op}'; accepted: a number")
    return check


def number(text: str) -> Decimal:
    """Return the number that a text is, and nothing else. Raises `NotANumber`."""
    if not _NUMBER.fullmatch(text.strip()):
        raise NotANumber(f"{text!r} is not a number")
    return Decimal(text.strip())


def holds(check: Check, seen: str) -> bool:
    """Return whether the assertion holds for a captured value; as text, but for the comparisons of numbers.

    Raises `NotANumber`.
    """
    if check.op in _ORDER:
        return _ORDER[check.op](number(seen), number(check.value))
    if check.op is Op.MATCHES:
        return re.search(check.value, seen) is not None
    if check.op is Op.CONTAINS:
        return check.value in seen
    return (seen == check.value) is (check.op is Op.EQUAL)
