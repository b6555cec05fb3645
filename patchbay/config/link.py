"""Link conditions as users write them: a preset's name, a table, or a value of `model.link`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.errors import ClassValidationError

from patchbay.errors import Problem, SpecError, did_you_mean
from patchbay.model.link import (
    LINK_PRESETS,
    Impairment,
    LinkCondition,
    LinkPreset,
    RegionLink,
    Trace,
)

__all__ = ["accept_links"]

# An opportunity of a trace carries one full Ethernet frame: mahimahi's 1500 bytes of IP, 14 of header.
OPPORTUNITY_BITS = 1514 * 8

ImpairmentT = TypeVar("ImpairmentT", bound=Impairment)
Refusal = Callable[[object, str], Exception]
Hook = Callable[[object, Any], Any]


def accept_links(
    converter: cattrs.Converter, table_of: Callable[[type], Hook], folder: Path, refuse: Refusal
) -> None:
    """Teach `converter` the types of `model.link`. Traces are looked for in `folder`.

    `table_of` makes the hook that reads a plain table, `refuse` the error of a value of another kind.
    """
    impairment_table, condition_table = table_of(Impairment), table_of(LinkCondition)

    def impairment(value: object, _: object) -> Impairment:
        if isinstance(value, str):
            return _preset(value, refuse).of("up")  # the same in both directions
        return _in_range(impairment_table, _as_table(value), Impairment)

    def condition(value: object, _: object) -> LinkCondition:
        if isinstance(value, str):
            return _preset(value, refuse)
        if not isinstance(value, Mapping | Impairment):
            raise refuse(value, "a preset's name or a table such as { latency_ms = 20 }")
        return _in_range(condition_table, _as_table(value), LinkCondition)

    def region_link(value: object, _: object) -> LinkCondition:
        # A plain number is the latency.
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = {"latency_ms": value}
        return condition(value, LinkCondition)

    def trace(value: object, _: object) -> Trace:
        if isinstance(value, Trace):
            return value
        if not isinstance(value, str) or "\0" in value:
            raise refuse(value, "the path of a packet-delivery trace")
        return _read_trace((folder / value).resolve())

    converter.register_structure_hook(Impairment, impairment)
    converter.register_structure_hook(LinkCondition, condition)
    converter.register_structure_hook(RegionLink, region_link)
    converter.register_structure_hook(Trace, trace)


def _as_table(value: object) -> object:
    """Turn a value made in Python into a table, so that it is checked like one."""
    if isinstance(value, Impairment):
        return value.set_values()
    return value


def _in_range(table: Hook, value: object, wanted: type[ImpairmentT]) -> ImpairmentT:
    """Read `value` by `table`. Report values out of range together with those that cannot be read."""
    try:
        found: ImpairmentT = table(value, wanted)
    except ClassValidationError as error:
        if any(isinstance(inner, SpecError) for inner in error.exceptions):
            raise
        numbers = {key: number for key, number in _items(value) if type(number) in (int, float)}
        try:
            Impairment(**{key: numbers[key] for key in attrs.fields_dict(Impairment) if key in numbers})
        except SpecError as out_of_range:
            errors = [*error.exceptions, out_of_range]
            raise ClassValidationError("link", errors, wanted) from None  # pyright: ignore[reportCallIssue]
        raise
    return found


def _items(value: object) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, Mapping) else ()


def _preset(value: str, refuse: Refusal) -> LinkCondition:
    names = [preset.value for preset in LinkPreset]
    if value not in names:
        accepted = ", ".join(map(repr, names))
        raise refuse(
            value, f"{accepted}, or a table such as {{ latency_ms = 20 }}{did_you_mean(value, names)}"
        )
    return LINK_PRESETS[LinkPreset(value)]


def _read_trace(path: Path) -> Trace:
    """Return the trace in a file: times in ms, one a line, in order. The last is the period."""
    try:
        lines = path.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a text file"
        raise SpecError([Problem("", f"the trace {path} cannot be read: {why}")]) from None
    last, count = 0, 0
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        if not (text.isascii() and text.isdigit()) or int(text) < last:
            what = f"found {text!r}; accepted: whole milliseconds, none before that of the line above"
            raise SpecError([Problem("", f"line {number} of the trace {path}: {what}")])
        last, count = int(text), count + 1
    if last == 0:
        raise SpecError([Problem("", f"the trace {path} has no delivery after 0 ms; accepted: at least one")])
    return Trace(str(path), count * OPPORTUNITY_BITS / last)
