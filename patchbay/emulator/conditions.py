"""The conditions of a link: the relay's arguments, read strictly. Standard library only."""

from __future__ import annotations

import math
from typing import NamedTuple

from patchbay.sandbox.inside.service import UsageError

__all__ = ["Arguments", "Conditions", "parse", "parse_trace"]

# What a delay line holds where no limit is given: memory must have a bound.
_LIMIT = 10_000
_PERCENT = ("loss_pct", "reorder_pct", "duplicate_pct", "corrupt_pct")
_SHAPING = ("burst_bytes", "buffer_bytes")


class Conditions(NamedTuple):
    """The conditions of one direction; a value of 0, or an empty one, does not apply."""

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_pct: float = 0.0
    reorder_pct: float = 0.0
    duplicate_pct: float = 0.0
    corrupt_pct: float = 0.0
    rate_kbit: float = 0.0
    burst_bytes: int = 0
    buffer_bytes: int = 0
    limit: int = _LIMIT
    trace: tuple[int, ...] = ()  # the milliseconds of a mahimahi file

    @property
    def narrow(self) -> tuple[object, ...]:
        """Return what makes the bottleneck. While this stays, so do its packets and its place in a trace."""
        return self.rate_kbit, self.burst_bytes, self.buffer_bytes, self.trace

    @property
    def shaped(self) -> bool:
        return bool(self.rate_kbit or self.trace)

    @property
    def transparent(self) -> bool:
        """Return True if nothing is done to packets."""
        return not (self.shaped or self.latency_ms or self.jitter_ms or any(self[2:6]))


class Arguments(NamedTuple):
    far: str
    near: str
    seed: int
    up: Conditions
    down: Conditions


def parse(argv: list[str]) -> Arguments:
    """Read `--far IF --near IF --seed N --up KEY=VALUE... --down KEY=VALUE...`, in any order."""
    words = _by_option(argv)
    for name in ("--far", "--near", "--seed"):
        if len(words.get(name, ())) != 1:
            raise UsageError(f"{name} wants one value")
    return Arguments(
        words["--far"][0],
        words["--near"][0],
        int(_number("--seed", words["--seed"][0], whole=True)),
        _conditions(words.get("--up", [])),
        _conditions(words.get("--down", [])),
    )


def _by_option(argv: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    option = None
    for word in argv:
        if not word.startswith("--"):
            if option is None:
                raise UsageError(f"{word!r} belongs to no option")
            found[option].append(word)
            continue
        option = word
        if option not in ("--far", "--near", "--seed", "--up", "--down"):
            raise UsageError(f"there is no option {option}")
        if option in found:
            raise UsageError(f"{option} is given twice")
        found[option] = []
    return found


def _conditions(words: list[str]) -> Conditions:
    found: dict[str, float | tuple[int, ...]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in Conditions._fields:
            raise UsageError(f"{word!r} is not KEY=VALUE of a known key")
        if key in found:
            raise UsageError(f"{key} is given twice")
        found[key] = _read_trace(value) if key == "trace" else _value(key, value)
    conditions = Conditions(**found)  # type: ignore[arg-type]
    _check_shaping(conditions, found.keys())
    return conditions


def _check_shaping(conditions: Conditions, given: object) -> None:
    if conditions.rate_kbit and conditions.trace:
        raise UsageError("rate_kbit and trace exclude each other")
    if conditions.shaped and not conditions.buffer_bytes:
        raise UsageError("rate_kbit and trace want buffer_bytes")
    if conditions.rate_kbit and not conditions.burst_bytes:
        raise UsageError("rate_kbit wants burst_bytes")


def _value(key: str, value: str) -> float:
    number = _number(key, value, whole=key in (*_SHAPING, "limit"))
    if number < 0 or (key in _PERCENT and number > 100):
        raise UsageError(f"{key}={value} is out of range")
    if number == 0 and key in (*_SHAPING, "rate_kbit", "limit"):
        raise UsageError(f"{key} must be more than 0")
    return number


def _number(name: str, value: str, whole: bool = False) -> float:
    try:
        number = int(value) if whole else float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{name}: {value!r} is not a {'whole ' if whole else ''}number")
    return number


def _read_trace(path: str) -> tuple[int, ...]:
    with open(path, encoding="ascii", errors="replace") as file:
        return parse_trace(file.read(), path)


def parse_trace(text: str, name: str = "trace") -> tuple[int, ...]:
    """Return the milliseconds of a mahimahi packet-delivery trace: one line, one opportunity."""
    times: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        if not line.strip().isdecimal():
            raise UsageError(f"{name}:{number}: {line.strip()!r} is not a whole number of milliseconds")
        times.append(int(line))
        if times[-1] < times[max(len(times) - 2, 0)]:
            raise UsageError(f"{name}:{number}: earlier than the line before")
    if not times or times[-1] == 0:
        raise UsageError(f"{name}: must end after more than 0 ms")
    return tuple(times)
