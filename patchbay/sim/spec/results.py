"""Results: captured values under names that every sim shares, so that runs can be compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from attrs import field, frozen

from patchbay.sim.spec.asserts import NotANumber, number

__all__ = ["Measured", "Results", "measure"]

Number = int | float


@frozen
class Results:
    """Results, each with its capture: `id.capture`, or `.capture` for the step's own."""

    duration: str | None = None
    up_bytes: str | None = None
    down_bytes: str | None = None
    latency_ms: str | None = None
    metrics: dict[str, str] = field(factory=dict)

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield (path relative to the table, capture) for all that are set."""
        for name in ("duration", "up_bytes", "down_bytes", "latency_ms"):
            if (capture := getattr(self, name)) is not None:
                yield name, capture
        for name, capture in self.metrics.items():
            yield f"metrics.{name}", capture

    def with_names(self, renamed: Callable[[str, str], str]) -> Results:
        """Return the results with each capture, given with its path, under another name."""
        metrics = {name: renamed(f"metrics.{name}", capture) for name, capture in self.metrics.items()}
        plain = {name: capture for name, capture in self.named() if not name.startswith("metrics.")}
        return Results(**{name: renamed(name, capture) for name, capture in plain.items()}, metrics=metrics)


@frozen
class Measured:
    """A step's results: `duration` in seconds, the others as their names say."""

    duration: float | None = None
    up_bytes: Number | None = None
    down_bytes: Number | None = None
    latency_ms: Number | None = None
    metrics: dict[str, Number | str] = field(factory=dict)


def measure(results: Results, value_of: Callable[[str], str | None]) -> tuple[Measured, list[str]]:
    """Return the results, and what is wrong with those that are missing; `value_of` gives what was captured.

    One's own metrics may be texts, the others must be numbers.
    """
    plain: dict[str, Number] = {}
    metrics: dict[str, Number | str] = {}
    faults = []
    for path, capture in results.named():
        text = value_of(capture)
        value = _number_or_text(text) if text is not None else None
        if value is None:
            faults.append(f"results.{path}: nothing was captured as '{capture}'")
        elif path.startswith("metrics."):
            metrics[path.removeprefix("metrics.")] = value
        elif isinstance(value, str):
            faults.append(f"results.{path}: '{capture}' is {value!r}, which is not a number")
        else:
            plain[path] = value
    # Seconds are written with a fraction, microseconds without.
    if isinstance(microseconds := plain.get("duration"), int):
        plain["duration"] = microseconds / 1_000_000
    return Measured(**plain, metrics=metrics), faults


def _number_or_text(text: str) -> Number | str:
    try:
        value = number(text)
    except NotANumber:
        return text
    if text.strip().lstrip("+-").isdecimal():
        return int(value)
    # JSON, in which results are written, has no infinity.
    return float(value) if math.isfinite(float(value)) else text
