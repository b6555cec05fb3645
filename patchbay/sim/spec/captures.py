"""Captures: values taken out of what a command prints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from attrs import field, frozen

from patchbay.errors import Problem

__all__ = ["Capture", "Captured", "NotJson", "Parser", "Pipe", "scan_document", "scan_line"]

_SHOWN = 300


class Pipe(StrEnum):
    """A stream that a command writes."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Parser(StrEnum):
    """The parser of a command's output: `text` line by line, `json` as a whole when the command has ended."""

    TEXT = "text"
    JSON = "json"


class NotJson(ValueError):
    """The output of a command with `parser = "json"` is something else."""


@frozen
class Capture:
    """A capture: `regex` (group 1, or the whole match) of a line, or `pick` of a JSON document.

    `match` lets only documents through that have these keys with these values; of an array, the
    elements are looked at one by one. The newest value wins.
    """

    pipe: Pipe = Pipe.STDOUT
    regex: str | None = None
    match: dict[str, Any] = field(factory=dict)
    pick: str | None = None

    def problems(self, parser: Parser) -> Iterator[Problem]:
        """Yield the problems of the capture by itself, under relative paths."""
        if (self.regex is None) == (self.pick is None):
            yield Problem("", "accepted: either `regex` or `pick`")
        if self.regex is not None:
            try:
                re.compile(self.regex)
            except re.error as error:
                yield Problem("regex", f"found {self.regex!r}, which is no regular expression: {error}")
        if self.pick is not None and parser is Parser.TEXT:
            yield Problem("pick", 'needs JSON; accepted: with parser = "json"')
        if self.match and self.pick is None:
            yield Problem("match", "chooses among JSON documents; accepted: together with `pick`")


@frozen
class Captured:
    """A value, as text, and the line or document it came from."""

    value: str
    origin: str


def scan_line(captures: Mapping[str, Capture], pipe: Pipe, number: int, line: str) -> dict[str, Captured]:
    """Return what `regex` captures find in a line of output; lines count from 1."""
    found = {}
    for name, capture in captures.items():
        if capture.regex is None or capture.pipe is not pipe:
            continue
        if match := re.search(capture.regex, line):
            whole = match.re.groups == 0 or match[1] is None
            origin = f"{pipe} line {number}: {_short(line)}"
            found[name] = Captured(match[0] if whole else match[1], origin)
    return found


def scan_document(captures: Mapping[str, Capture], pipe: Pipe, text: str) -> dict[str, Captured]:
    """Return what `pick` captures find in the whole output. Raises `NotJson`."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise NotJson(f"{pipe} is not JSON: {error}; it begins with {_short(text)!r}") from None
    found = {}
    for name, capture in captures.items():
        if capture.pick is None or capture.pipe is not pipe:
            continue
        for candidate in document if isinstance(document, list) and capture.match else [document]:
            if matches(candidate, capture.match) and (picked := pick(candidate, capture.pick)):
                found[name] = Captured(_as_text(picked[0]), f"{pipe}, JSON at {capture.pick}: {picked[1]}")
    return found


def matches(value: object, wanted: Mapping[str, Any]) -> bool:
    """Return whether a JSON value has all these keys with these values; tables inside likewise."""
    if not wanted:
        return True
    return isinstance(value, dict) and all(
        key in value and (matches(value[key], want) if isinstance(want, Mapping) else _same(value[key], want))
        for key, want in wanted.items()
    )


def _same(value: object, wanted: object) -> bool:
    # To Python, 1 is True.
    return isinstance(value, bool) is isinstance(wanted, bool) and value == wanted


def pick(document: Any, path: str) -> tuple[Any, str] | None:
    """Return the value at a path such as ".a.b.0", and its surroundings to be shown; None without one."""
    value = around = document
    for step in path.removeprefix(".").split(".") if path.strip(".") else ():
        around = value
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value, _short(json.dumps(around, ensure_ascii=False))


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
