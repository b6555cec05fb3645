"""Finding sims: files, folders, or what a project's `patchbay.toml` names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import frozen

from patchbay.config.converter import make_converter, structure
from patchbay.config.lab_file import read_toml
from patchbay.config.topology_file import is_sim
from patchbay.errors import Problem, SpecError
from patchbay.sim.spec.load import load_sim
from patchbay.sim.spec.sim import Sim

__all__ = ["load_sims", "sim_files"]

_PROJECT_FILE = "patchbay.toml"
_SIM_HEADER = re.compile(r"^\s*\[+\s*(sim|step)\b", re.MULTILINE)


@frozen
class _Project:
    """`patchbay.toml`: `simulations` is a path or glob, relative to the file's folder."""

    simulations: str | None = None


def load_sims(named: Sequence[Path], cwd: Path) -> list[Sim]:
    """Return the sims in what is named, or in what the project names if nothing is.

    Raises `SpecError` with every problem of every file.
    """
    sims: list[Sim] = []
    problems: list[Problem] = []
    for file in sim_files(named, cwd):
        try:
            sims.append(load_sim(file))
        except SpecError as error:
            problems += _located(error)
    if problems:
        raise SpecError(problems)
    return sims


def sim_files(named: Sequence[Path], cwd: Path) -> list[Path]:
    """Their files, each once. Raises `SpecError`."""
    places = list(named) or _project(cwd)
    found: dict[Path, Path] = {}
    problems: list[Problem] = []
    for place in places:
        try:
            for file in _sims_in(place):
                found.setdefault(file.resolve(), file)
        except SpecError as error:
            problems += _located(error)
    if problems:
        raise SpecError(problems)
    return list(found.values())


def _located(error: SpecError) -> Iterable[Problem]:
    source = error.source
    if source is None:
        return error.problems
    return [Problem(f"{source}:{p.path}" if p.path else source, p.message) for p in error.problems]


def _sims_in(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    found = (file for file in sorted(place.rglob("*.toml")) if _may_hold_sims(file.parent.relative_to(place)))
    files = [file for file in found if _is_sim_file(file)]
    if not files:
        message = "no sim in this folder or below; accepted: *.toml files that have [sim] or [[step]]"
        raise SpecError([Problem("", message)], str(place))
    return files


def _is_sim_file(file: Path) -> bool:
    """Return True for a sim, also for one that is no TOML: loading it says why. Other files are nobody's."""
    try:
        return is_sim(read_toml(file))
    except SpecError:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:  # it may be one
            return True
        return _SIM_HEADER.search(text) is not None


def _may_hold_sims(folder: Path) -> bool:
    """Return False for folders of topologies, and for hidden ones such as .patchbay-work."""
    return not any(part == "topos" or part.startswith(".") for part in folder.parts)


def _project(cwd: Path) -> list[Path]:
    """Return the sims that the nearest `patchbay.toml`, here or further up, names."""
    candidates = (folder / _PROJECT_FILE for folder in (cwd, *cwd.parents))
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        message = f"no sim named, and no {_PROJECT_FILE} here or further up that names some"
        raise SpecError([Problem("", message)])
    pattern = structure(make_converter(), read_toml(file), _Project, str(file)).simulations
    if not pattern:
        raise SpecError([Problem("simulations", "is missing; accepted: a path or glob")], str(file))
    meant = file.parent.absolute() / pattern
    root = Path(meant.anchor)
    found = [meant] if meant.exists() else sorted(root.glob(str(meant.relative_to(root))))
    if not found:
        raise SpecError([Problem("simulations", f"found {pattern!r}, and nothing is there")], str(file))
    return found
