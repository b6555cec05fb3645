"""The progress of a run of sims: a table that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from patchbay.report.results import measured_lines, time_in_words
from patchbay.sim.spec.outcome import (
    Printed,
    RunEvent,
    SimBegan,
    SimEnded,
    SimEvent,
    SimOutcome,
    Status,
    StepBegan,
    StepEnded,
    Tick,
)

__all__ = ["PlainLines", "TerminalTable", "print_results", "watcher"]

_STYLES = {
    Status.PASSED: "green",
    Status.FAILED: "bold red",
    Status.INTERRUPTED: "yellow",
    Status.RUNNING: "cyan",
    Status.WAITING: "dim",
}
# More rows than a small terminal has would scroll, and rich then shows only some of them.
_ROWS = 16


def watcher(console: Console, outcomes: Sequence[SimOutcome], *, verbose: bool) -> PlainLines | TerminalTable:
    """Return the context manager that shows the progress."""
    kind = TerminalTable if console.is_terminal else PlainLines
    return kind(console, outcomes, verbose=verbose)


class PlainLines(contextlib.AbstractContextManager["PlainLines"]):
    """A line for each step; with `verbose` also what the commands print, and how each step ended."""

    def __init__(self, console: Console, outcomes: Sequence[SimOutcome], *, verbose: bool) -> None:
        self._console = console
        self._verbose = verbose

    def __exit__(self, *_: object) -> None:
        return None

    def __call__(self, event: RunEvent) -> None:
        if isinstance(event, Tick):
            return
        name = event.sim.sim.name
        if isinstance(event, StepBegan):
            self._say(f"sim {name}: step {position(event)} {event.step.planned.title}")
        elif isinstance(event, SimEnded):
            self._say(f"sim {name}: {event.sim.status} in {time_in_words(event.sim.elapsed)}")
        elif self._verbose:
            for line in details(event):
                self._say(f"sim {name}: {line}")

    def _say(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


def position(event: StepBegan | StepEnded) -> str:
    """Which step of how many: 3/7."""
    return f"{event.sim.steps.index(event.step) + 1}/{len(event.sim.steps)}"


def details(event: SimEvent) -> list[str]:
    """Return what `--verbose` adds."""
    if isinstance(event, SimBegan):
        return [f"begins; files in {event.sim.folder}"]
    if isinstance(event, Printed):
        device = event.step.planned.step.device
        return [f"{device} {event.pipe}| {event.line}"]
    if isinstance(event, StepEnded):
        captured = [f"{name} = {value.value}" for name, value in event.step.captured.items()]
        ended = f"{event.step.status} in {time_in_words(event.step.elapsed)}"
        return [f"step {position(event)} {ended}" + (f": {', '.join(captured)}" if captured else "")]
    return []


class TerminalTable(contextlib.AbstractContextManager["TerminalTable"]):
    """A row for each sim with the step that it is at; with `verbose` the details scroll by above."""

    def __init__(self, console: Console, outcomes: Sequence[SimOutcome], *, verbose: bool) -> None:
        self._outcomes = outcomes
        self._verbose = verbose
        self._spinners = {id(outcome): Spinner("dots") for outcome in outcomes}
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8, transient=True)

    def __enter__(self) -> TerminalTable:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, event: RunEvent) -> None:
        if self._verbose and not isinstance(event, Tick):
            for line in details(event):
                self._live.console.print(Text(f"{event.sim.sim.name}: {line}"))

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        running = [outcome for outcome in self._outcomes if outcome.status is Status.RUNNING]
        others = [outcome for outcome in self._outcomes if outcome.status is not Status.RUNNING]
        shown = [*running, *others][:_ROWS] if len(self._outcomes) > _ROWS else self._outcomes
        for outcome in shown:
            table.add_row(self._mark(outcome), outcome.sim.name, _at(outcome), _time(outcome))
        done = sum(outcome.elapsed is not None for outcome in self._outcomes)
        return Group(table, Text(f"{done} of {len(self._outcomes)} sims done", style="dim"))

    def _mark(self, outcome: SimOutcome) -> RenderableType:
        if outcome.status is Status.RUNNING:
            return self._spinners[id(outcome)]
        return Text(
            {Status.PASSED: "✓", Status.FAILED: "✗"}.get(outcome.status, "·"), _STYLES[outcome.status]
        )


def _at(outcome: SimOutcome) -> Text:
    """Return the place of a sim in words."""
    for index, step in enumerate(outcome.steps):
        if step.status is Status.RUNNING:
            return Text(f"step {index + 1}/{len(outcome.steps)} {step.planned.title}")
    opening = outcome.status is Status.RUNNING
    return Text("opening or closing its lab" if opening else str(outcome.status), _STYLES[outcome.status])


def _time(outcome: SimOutcome) -> Text:
    seconds = outcome.so_far() if outcome.status is Status.RUNNING else outcome.elapsed
    return Text(time_in_words(seconds) if seconds is not None else "", style="dim")


def print_results(console: Console, outcomes: Sequence[SimOutcome], folder: Path) -> None:
    """Print a table of all sims, and for those that failed the reason and the files."""
    if not console.is_terminal:
        console = Console(file=console.file, width=200, highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("sim", "status", "time", "results"):
        table.add_column(heading, overflow="fold")
    for outcome in outcomes:
        status = Text(str(outcome.status), _STYLES[outcome.status])
        results = Text("\n".join(measured_lines(outcome)))
        table.add_row(Text(outcome.sim.name), status, time_in_words(outcome.elapsed), results)
    console.print()
    console.print(table)
    for outcome in outcomes:
        if outcome.error:
            console.print(Text(f"\n{outcome.sim.name} failed\n", "bold red"), Text(outcome.error), sep="")
            console.print(Text(f"  files      {outcome.folder}"), soft_wrap=True)
    passed = sum(outcome.status is Status.PASSED for outcome in outcomes)
    console.print(Text(f"\n{passed} of {len(outcomes)} sims passed; files in {folder}"), soft_wrap=True)
