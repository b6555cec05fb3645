"""Values that users may write as in a file: read when they are made, with every problem at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from patchbay.errors import Problem, SpecError, did_you_mean

__all__ = ["flag", "one_of", "parse_or_keep", "refuse", "refuse_wrong", "whole_number"]

T = TypeVar("T")
EnumT = TypeVar("EnumT", bound=StrEnum)
Read = Callable[[object], Any]


def refuse(value: object, accepted: str) -> SpecError:
    """Return the error of a value that is not accepted."""
    return SpecError([Problem("", f"found {value!r}; accepted: {accepted}")])


def parse_or_keep(read: Callable[[object], T], value: object) -> T:
    """Return the value as read; as it is where that cannot be, for `refuse_wrong` to tell of."""
    try:
        return read(value)
    except SpecError:
        return value  # type: ignore[return-value]


def refuse_wrong(value: object, readers: Mapping[str, Read]) -> None:
    """Raises `SpecError` with every field of `value` that its reader cannot read."""
    problems = []
    for name, read in readers.items():
        try:
            read(getattr(value, name))
        except SpecError as error:
            problems += [Problem(name, problem.message) for problem in error.problems]
    if problems:
        raise SpecError(problems)


def flag(value: object) -> bool:
    """True or false, and nothing that is like it."""
    if type(value) is not bool:
        raise refuse(value, "true or false")
    return value


def one_of(value: object, kind: type[EnumT]) -> EnumT:
    """Return the member of that name."""
    if not isinstance(value, str) or value not in list(kind):
        hint = did_you_mean(value, list(kind)) if isinstance(value, str) else ""
        raise refuse(value, ", ".join(f"'{each}'" for each in kind) + hint)
    return kind(value)


def whole_number(value: object, low: int, high: int, unit: str) -> int:
    """Return an integer of that range."""
    if type(value) is not int or not low <= value <= high:
        raise refuse(value, f"whole {unit} from {low} to {high}")
    return value
