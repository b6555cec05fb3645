"""The folder of a run of sims: what is run, how far it is, what came of it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from patchbay.record.folder import file_stem, new_folder, write_json, write_whole
from patchbay.report.combined import as_combined_markdown, as_combined_values, status_of
from patchbay.report.results import as_markdown, as_values
from patchbay.sim.spec.encode import as_table
from patchbay.sim.spec.outcome import (
    Printed,
    RunEvent,
    SimBegan,
    SimEnded,
    SimOutcome,
    Status,
    StepBegan,
    StepEnded,
    Tick,
)
from patchbay.sim.spec.sim import Sim

__all__ = ["RunFolder"]

_SPARED = 10


class RunFolder:
    """`<work-dir>/sim-YYMMDD-HHMMSS/`. Watches the runner, and writes each file whole.

    `outcomes` are the sims in it, yet to be run.
    """

    def __init__(self, path: Path, sims: Sequence[Sim], arguments: Sequence[str]) -> None:
        self.path = path
        self.outcomes = [
            SimOutcome(sim=sim, folder=path / name) for name, sim in zip(_names(sims), sims, strict=True)
        ]
        self._started = datetime.now(UTC)
        self._progress_at = self._progress_took = 0.0
        write_json(path / "manifest.json", self._manifest(arguments))
        self._write_progress()

    @classmethod
    def create(cls, work_dir: Path, sims: Sequence[Sim], arguments: Sequence[str]) -> RunFolder:
        """Make a folder, which `latest` then points to."""
        stamp = datetime.now().strftime("sim-%y%m%d-%H%M%S")
        folder = cls(new_folder(work_dir, stamp), sims, arguments)
        _point(work_dir / "latest", folder.path.name)
        return folder

    def _manifest(self, arguments: Sequence[str]) -> dict[str, Any]:
        return {
            "run": self.path.name,
            "started": self._started.isoformat(),
            "arguments": list(arguments),
            "folder": os.fspath(Path.cwd()),
            "patchbay": importlib.metadata.version("patchbay"),
            "python": platform.python_version(),
            "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
            "user": os.geteuid(),
            "sims": [
                {
                    "name": outcome.sim.name,
                    "file": os.fspath(outcome.sim.file.resolve()),
                    "folder": outcome.folder.name,
                    "steps": len(outcome.steps),
                }
                for outcome in self.outcomes
            ],
        }

    def __call__(self, event: RunEvent) -> None:
        """Write down what happened in the runner."""
        if isinstance(event, Tick):
            self._write_progress()
        elif not isinstance(event, Printed):
            self._note(event)

    def _note(self, event: SimBegan | StepBegan | StepEnded | SimEnded) -> None:
        sim = event.sim
        if isinstance(event, SimBegan):
            sim.folder.mkdir(parents=True, exist_ok=True)
            write_json(sim.folder / "sim.json", as_table(sim.sim))
        if isinstance(event, SimEnded):
            write_json(sim.folder / "results.json", as_values(sim))
            write_whole(sim.folder / "results.md", as_markdown(sim))
        # The end of a step is the beginning of the next one or the end of the sim. With thousands of steps
        # this file is long: a tenth of the time may go into it, and what is left out follows in a moment.
        spared = time.monotonic() - self._progress_at < _SPARED * self._progress_took
        if not (isinstance(event, StepEnded) or (spared and isinstance(event, StepBegan))):
            self._write_progress()

    def close(self) -> None:
        """Write what all sims together came to; also when some were not run."""
        elapsed = (datetime.now(UTC) - self._started).total_seconds()
        write_json(
            self.path / "combined-results.json", as_combined_values(self.path.name, self.outcomes, elapsed)
        )
        write_whole(self.path / "combined-results.md", as_combined_markdown(self.path.name, self.outcomes))
        self._write_progress()

    def _write_progress(self) -> None:
        began = time.monotonic()
        progress = {
            "run": self.path.name,
            "status": status_of(self.outcomes),
            "started": self._started.isoformat(),
            "written": datetime.now(UTC).isoformat(),
            "sims": [_progress(outcome) for outcome in self.outcomes],
        }
        write_json(self.path / "progress.json", progress)
        self._progress_at = time.monotonic()
        self._progress_took = self._progress_at - began


def _progress(outcome: SimOutcome) -> dict[str, Any]:
    running = [index for index, step in enumerate(outcome.steps) if step.status is Status.RUNNING]
    return {
        "name": outcome.sim.name,
        "folder": outcome.folder.name,
        "status": outcome.status,
        "elapsed": round(outcome.so_far() if outcome.elapsed is None else outcome.elapsed, 3),
        "step": running[0] if running else None,
        "steps": [
            {
                "step": step.planned.path,
                "title": step.planned.title,
                "status": step.status,
                "elapsed": None if step.elapsed is None else round(step.elapsed, 3),
            }
            for step in outcome.steps
        ],
    }


def _names(sims: Sequence[Sim]) -> list[str]:
    """Return a folder's name for each sim, numbered where two sims would share one."""
    names: list[str] = []
    for sim in sims:
        stem = name = file_stem(sim.name)
        number = 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


def _point(link: Path, target: str) -> None:
    """Make `link` point to `target`, replacing what it pointed to in one step."""
    with tempfile.TemporaryDirectory(dir=link.parent, prefix=".latest.") as folder:
        new = Path(folder) / "latest"
        new.symlink_to(target)
        new.replace(link)
