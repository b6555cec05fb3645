"""Sim files: TOML -> Sim, with every problem of the file reported at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from patchbay.config.converter import NOT_YET, describe_value, unknown_key
from patchbay.config.lab_file import TOPOLOGY_KEYS, draft_lab, read_toml
from patchbay.config.topology_file import SIM_KEYS, find_topology, is_sim
from patchbay.errors import Problem, SpecError
from patchbay.sim.actions import Step, WaitForStep
from patchbay.sim.check import check_steps
from patchbay.sim.decode import converter, decode_sim, decode_step, not_yet
from patchbay.sim.expand import expand
from patchbay.sim.outcome import Sim
from patchbay.sim.topology import Topology, check_topology

__all__ = ["load_sim"]

_NOT_YET = frozenset({"extends", "matrix", "binary", "prepare", "step-template", "step-group"})


def load_sim(path: Path) -> Sim:
    """The sim in a file. Raises `SpecError` with all its problems."""
    table = read_toml(path)
    if not is_sim(table):
        hint = f"to hold its lab open: patchbay inspect {path}"
        message = f"is a lab file: it has no [sim] and no [[step]]; accepted: a sim file; {hint}"
        raise SpecError([Problem("", message)], str(path))
    loader = _Loader(path, table)
    sim = loader.load()
    if loader.problems:
        raise SpecError(loader.located(), None)
    return sim


class _Loader:
    """Reads one file; `problems` are (file, problem)."""

    def __init__(self, path: Path, table: Mapping[str, Any]) -> None:
        self._path = path
        self._table = table
        self._converter = converter()
        self._unclear: dict[str, str] = {}
        self.problems: list[tuple[Path, Problem]] = []

    def located(self) -> list[Problem]:
        """The problems, each with its file in its path: a topology may stand in another one."""
        return [
            Problem(f"{file}:{problem.path}" if problem.path else str(file), problem.message)
            for file, problem in sorted(self.problems, key=lambda found: _place(found[1]))
        ]

    def _add(self, problems: Iterable[Problem], file: Path | None = None) -> None:
        self.problems += [(file or self._path, problem) for problem in problems]

    def load(self) -> Sim:
        self._top_level()
        header, problems = decode_sim(self._converter, self._table.get("sim", {}))
        self._add(problems)
        topology = self._topology(header.topology)
        steps = self._steps()
        # What is not read here may declare any id.
        read_all = not any("use" in step for step in self._raw_steps() if isinstance(step, Mapping))
        self._add(check_steps(steps, topology, self._unclear if read_all else None))
        known = topology or Topology()
        planned, problems = expand(steps, known.counts, known.spellings)
        self._add(problems if topology else [])
        name = header.name or self._path.stem
        return Sim(name, self._path, known.lab, tuple(planned), header.timeout)

    def _top_level(self) -> None:
        accepted = [*SIM_KEYS, *sorted(TOPOLOGY_KEYS - NOT_YET)]
        for key in sorted(self._table.keys() - {*SIM_KEYS, *TOPOLOGY_KEYS}):
            self._add([not_yet(key) if key in _NOT_YET else unknown_key(key, accepted, "")])

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

    def _raw_steps(self) -> list[Any]:
        steps = self._table.get("step")
        return steps if isinstance(steps, list) else []

    def _steps(self) -> list[tuple[str, Step]]:
        if not self._raw_steps():
            found = self._table.get("step", [])
            what = "a sim without steps" if isinstance(found, list) else f"found {describe_value(found)}"
            self._add([Problem("step", f"{what}; accepted: at least one [[step]]")])
        steps = []
        for index, raw in enumerate(self._raw_steps()):
            path = f"step[{index}]"
            decoded = decode_step(self._converter, raw, path)
            self._add(decoded.problems)
            if decoded.step is not None:
                steps.append((path, decoded.step))
            if not decoded.whole and not isinstance(decoded.step, WaitForStep) and (own := _id_of(raw)):
                self._unclear.setdefault(own, path)
        return steps


def _id_of(raw: object) -> str | None:
    own = raw.get("id") if isinstance(raw, Mapping) else None
    return own if isinstance(own, str) else None


def _place(problem: Problem) -> int:
    """Problems of steps stand in the order of the steps, behind all others."""
    step = re.match(r"step\[(\d+)\]", problem.path)
    return int(step[1]) if step else -1
