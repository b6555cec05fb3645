"""The topology of a lab file, or of a sim file that has or names one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchbay.config.draft import Draft
from patchbay.config.lab_file import TOPOLOGY_KEYS, draft_lab, read_toml
from patchbay.errors import Problem, SpecError

__all__ = ["SIM_KEYS", "draft_topology", "find_topology", "is_sim"]

SIM_KEYS = ("sim", "step")


def is_sim(table: Mapping[str, Any]) -> bool:
    """Return whether a TOML table has more than a topology."""
    return any(key in table for key in SIM_KEYS)


def draft_topology(path: Path) -> Draft:
    """Return the topology of a lab file or of a sim file, with what is wrong in it. Raises `SpecError`."""
    table = read_toml(path)
    if not is_sim(table):
        return draft_lab(table, str(path))
    sim = table["sim"] if isinstance(table.get("sim"), Mapping) else {}
    name = sim.get("topology")
    if isinstance(name, str):
        file = find_topology(path, name)
        return draft_lab(read_toml(file), str(file))
    return draft_lab({key: table[key] for key in TOPOLOGY_KEYS & table.keys()}, str(path))


def find_topology(sim: Path, name: str) -> Path:
    """Return the file that a sim's `topology` names: in `topos/` beside the sim or one folder up.

    Raises `SpecError`.
    """
    folders = (sim.parent / "topos", sim.resolve().parent.parent / "topos")
    candidates = [folder / each for folder in folders for each in (name, f"{name}.toml")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    there = sorted({file.stem for folder in folders for file in folder.glob("*.toml")})
    listed = f"there are: {', '.join(there)}" if there else f"looked in {folders[0]} and {folders[1]}"
    raise SpecError([Problem("sim.topology", f"no topology '{name}'; {listed}")], str(sim))
