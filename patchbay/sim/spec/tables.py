"""The raw tables of a sim file, before anything in them is structured.

What a file says once and means several times is written out here (matrix, templates and groups, which this
version does not have): only a table can hold a variable where a number belongs. Counted devices are
different, because they need the topology and what steps say of each other: see `expand.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from patchbay.config.converter import NOT_YET, describe_value, unknown_key
from patchbay.config.lab_file import TOPOLOGY_KEYS
from patchbay.config.topology_file import SIM_KEYS
from patchbay.errors import Problem
from patchbay.sim.spec.decode import not_yet

__all__ = ["SHARED_KEYS", "RawStep", "raw_steps", "top_level_problems"]

# Definitions that a file of its own may hold for several sims.
SHARED_KEYS = frozenset({"binary", "prepare", "step-template", "step-group"})
_NOT_YET = SHARED_KEYS | {"extends", "matrix"}


@frozen
class RawStep:
    """A `[[step]]` as it was parsed; `path` is its place in the file."""

    path: str
    table: object

    @property
    def id(self) -> str | None:
        """Return its id, if it has a readable one."""
        own = self.table.get("id") if isinstance(self.table, Mapping) else None
        return own if isinstance(own, str) else None

    @property
    def becomes_others(self) -> bool:
        """Return True if steps that are not read here may come from it."""
        return isinstance(self.table, Mapping) and "use" in self.table


def top_level_problems(table: Mapping[str, Any]) -> Iterator[Problem]:
    """Keys that a sim file does not have."""
    accepted = [*SIM_KEYS, *sorted(TOPOLOGY_KEYS - NOT_YET)]
    for key in sorted(table.keys() - {*SIM_KEYS, *TOPOLOGY_KEYS}):
        yield not_yet(key) if key in _NOT_YET else unknown_key(key, accepted, "")


def raw_steps(table: Mapping[str, Any]) -> tuple[list[RawStep], list[Problem]]:
    """Return the steps of a file, and what is wrong where there are none."""
    found = table.get("step", [])
    if not isinstance(found, list) or not found:
        what = "a sim without steps" if isinstance(found, list) else f"found {describe_value(found)}"
        return [], [Problem("step", f"{what}; accepted: at least one [[step]]")]
    return [RawStep(f"step[{index}]", step) for index, step in enumerate(found)], []
