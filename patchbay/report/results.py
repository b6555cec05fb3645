"""The results and the end of a sim, as plain values and as Markdown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from attrs import asdict

from patchbay.sim.spec.outcome import SimOutcome, StepOutcome
from patchbay.sim.spec.results import Measured

__all__ = ["as_markdown", "as_values", "cell", "measured_lines", "time_in_words"]


def as_values(outcome: SimOutcome) -> dict[str, Any]:
    """Return `results.json`: times in seconds, `duration` too."""
    return {
        "sim": outcome.sim.name,
        "file": os.fspath(outcome.sim.file),
        "status": outcome.status,
        "error": outcome.error or None,
        "started": outcome.started.isoformat() if outcome.started else None,
        "elapsed": _rounded(outcome.elapsed),
        "steps": [_step(step) for step in outcome.steps],
    }


def _step(step: StepOutcome) -> dict[str, Any]:
    return {
        "step": step.planned.path,
        "id": step.planned.step.own_id,
        "action": step.planned.step.action,
        "device": step.planned.step.device,
        "status": step.status,
        "error": step.error or None,
        "elapsed": _rounded(step.elapsed),
        "command": step.command,
        "exit": step.exit,
        "captures": {name: captured.value for name, captured in step.captured.items()},
        **asdict(step.measured or Measured()),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def time_in_words(seconds: float | None) -> str:
    """Return a time that was measured, for people: "4.2 ms", "0.42 s"; "-" where there is none."""
    if seconds is None:
        return "-"
    if seconds < 0.0995:
        return f"{seconds * 1000:.2g} ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f} m {rest:.0f} s" if minutes else f"{rest:.2f} s"


def measured_lines(outcome: SimOutcome) -> Iterator[str]:
    """Return a line for each step that measured something."""
    for step in outcome.steps:
        if words := ", ".join(_words(step.measured)) if step.measured else "":
            yield f"{step.planned.step.own_id or step.planned.path}: {words}"


def _words(measured: Measured) -> Iterator[str]:
    if measured.latency_ms is not None:
        yield f"latency {_number(measured.latency_ms)} ms"
    for name, size in (("up", measured.up_bytes), ("down", measured.down_bytes)):
        if size is not None:
            yield f"{name} {_scaled(size, 'B')}"
            if measured.duration:
                yield f"{_scaled(size * 8 / measured.duration, 'bit/s')}"
    if measured.duration is not None:
        yield f"in {time_in_words(measured.duration)}"
    for name, value in measured.metrics.items():
        yield f"{name} {value if isinstance(value, str) else _number(value)}"


def _number(value: float) -> str:
    """Return a number with six digits, or with all those before the point of a large one."""
    return f"{value:.0f}" if abs(value) >= 100_000 else f"{value:.6g}"


def _scaled(amount: float, unit: str) -> str:
    """Return an amount with three digits and an SI prefix, of powers of 1000: 1.00 Gbit/s, and 20 B."""
    if amount < 999.5:
        return f"{amount:.0f} {unit}"
    for prefix in "kMGT":
        amount /= 1000
        if amount < 999.5:
            return f"{f'{amount:#.3g}'.rstrip('.')} {prefix}{unit}"
    return f"{amount:.0f} T{unit}"


def as_markdown(outcome: SimOutcome) -> str:
    """Return `results.md`."""
    lines = [f"# {outcome.sim.name}: {outcome.status}", ""]
    lines += ["| step | what | status | time | captured |", "| --- | --- | --- | ---: | --- |"]
    for step in outcome.steps:
        captured = ", ".join(f"{name} = {value.value}" for name, value in step.captured.items())
        row = (step.planned.path, step.planned.title, step.status, time_in_words(step.elapsed), captured)
        lines.append("| " + " | ".join(map(cell, row)) + " |")
    if results := list(measured_lines(outcome)):
        lines += ["", "## Results", "", *(f"- {line}" for line in results)]
    if outcome.error:
        lines += ["", "## Failure", "", "```", outcome.error, "```"]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Return a text as a cell of a Markdown table."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
