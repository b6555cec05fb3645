"""Sim files: TOML -> Sim, with every problem of the file reported at once.

A file goes through raw tables (`tables.py`), steps that are read one by one (`decode.py`), what they say of
each other (`check.py`), and repetitions for counted devices (`expand.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from patchbay.config.lab_file import TOPOLOGY_KEYS, draft_lab, read_toml
from patchbay.config.topology_file import find_topology, is_sim
from patchbay.errors import Problem, SpecError
from patchbay.sim.spec.check import check_steps
from patchbay.sim.spec.decode import converter, decode_sim, decode_step
from patchbay.sim.spec.expand import expand
from patchbay.sim.spec.sim import Sim
from patchbay.sim.spec.steps import Step, WaitForStep
from patchbay.sim.spec.tables import SHARED_KEYS, RawStep, raw_steps, top_level_problems
from patchbay.sim.spec.topology import Topology, check_topology

__all__ = ["load_sim"]


def load_sim(path: Path) -> Sim:
    """Return the sim in a file. Raises `SpecError` with all its problems."""
    table = read_toml(path)
    if not is_sim(table):
        raise SpecError([Problem("", _what_it_is(path, table))], str(path))
    loader = _Loader(path, table)
    sim = loader.load()
    if loader.problems:
        raise SpecError(loader.located(), None)
    return sim


def _what_it_is(path: Path, table: Mapping[str, Any]) -> str:
    """Return the message about a file that is no sim."""
    why = "it has no [sim] and no [[step]]; accepted: a sim file"
    if shared := sorted(SHARED_KEYS & table.keys()):
        return (
            f"holds definitions for sims ({', '.join(shared)}): {why}, which may name this one in [[extends]]"
        )
    return f"is a lab file: {why}; to hold its lab open: patchbay inspect {path}"


class _Loader:
    """Reads one file; `problems` are (file, problem)."""

    def __init__(self, path: Path, table: Mapping[str, Any]) -> None:
        self._path = path
        self._table = table
        self._converter = converter()
        self._unclear: dict[str, str] = {}
        self.problems: list[tuple[Path, Problem]] = []

    def located(self) -> list[Problem]:
        """Return the problems, each with its file in its path: a topology may stand in another one."""
        return [
            Problem(f"{file}:{problem.path}" if problem.path else str(file), problem.message)
            for file, problem in sorted(self.problems, key=lambda found: _place(found[1]))
        ]

    def _add(self, problems: Iterable[Problem], file: Path | None = None) -> None:
        self.problems += [(file or self._path, problem) for problem in problems]

    def load(self) -> Sim:
        self._add(top_level_problems(self._table))
        header, problems = decode_sim(self._converter, self._table.get("sim", {}))
        self._add(problems)
        topology = self._topology(header.topology)
        raw, problems = raw_steps(self._table)
        self._add(problems)
        steps = self._structured(raw)
        # A step that is not read here may declare any id.
        unclear = None if any(step.becomes_others for step in raw) else self._unclear
        self._add(check_steps(steps, topology, unclear))
        known = topology or Topology()
        planned, problems = expand(steps, known.counts, known.spellings)
        self._add(problems if topology else [])
        name = header.name or self._path.stem
        return Sim(name, self._path, known.lab, tuple(planned), header.timeout)

    def _topology(self, name: str | None) -> Topology | None:
        """None where nothing is known of it."""
        inline = {key: self._table[key] for key in TOPOLOGY_KEYS & self._table.keys()}
        if name is None:
            topology, problems = check_topology(draft_lab(inline, folder=self._path.parent))
            self._add(problems)
            return topology
        if inline:
            both = f"found '{name}' and {', '.join(sorted(inline))} in this file; accepted: one of the two"
            self._add([Problem("sim.topology", both)])
        try:
            file = find_topology(self._path, name)
            table = read_toml(file)
        except SpecError as error:
            self._add(error.problems, Path(error.source) if error.source else None)
            return None
        topology, problems = check_topology(draft_lab(table, folder=file.parent))
        self._add(problems, file)
        return topology

    def _structured(self, raw: Iterable[RawStep]) -> list[tuple[str, Step]]:
        """Return the steps that can be read, each (path, step)."""
        steps = []
        for each in raw:
            decoded = decode_step(self._converter, each.table, each.path)
            self._add(decoded.problems)
            if decoded.step is not None:
                steps.append((each.path, decoded.step))
            if not decoded.whole and not isinstance(decoded.step, WaitForStep) and each.id:
                self._unclear.setdefault(each.id, each.path)
        return steps


def _place(problem: Problem) -> int:
    """Problems of steps stand in the order of the steps, behind all others."""
    step = re.match(r"step\[(\d+)\]", problem.path)
    return int(step[1]) if step else -1
