"""Changes as plain tables, as TOML and JSON have them, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patchbay.change.base import Change, check_change
from patchbay.change.links import (
    BreakRegionLink,
    LinkRegions,
    LoseLink,
    RestoreRegionLink,
    SetDownlinkCondition,
    SetLinkCondition,
    UseEmulator,
)
from patchbay.change.made import made_of
from patchbay.change.names import AddName, RemoveName, SetNameserver
from patchbay.change.nodes import Add, RemoveDevice, RemoveRouter
from patchbay.change.policies import FlushNat, SetFirewall, SetNat
from patchbay.config.converter import describe_value
from patchbay.config.encode import fields_of, lab_table
from patchbay.config.lab_file import draft_part
from patchbay.errors import Problem, SpecError, did_you_mean

__all__ = ["CHANGES", "from_record", "from_table", "to_table"]

# What users can do to a lab, by the name that it has in files.
CHANGES: Mapping[str, type[Change]] = {
    kind.action: kind
    for kind in (
        *(Add, RemoveDevice, RemoveRouter),
        *(SetLinkCondition, SetDownlinkCondition, LinkRegions, BreakRegionLink, RestoreRegionLink),
        *(SetNat, FlushNat, SetFirewall),
        *(AddName, RemoveName, SetNameserver),
    )
}

# What a lab changes by itself.
_FOUND_OUT: Mapping[str, type[Change]] = {kind.action: kind for kind in (LoseLink, UseEmulator)}


def to_table(change: Change) -> dict[str, Any]:
    """Return the change as a table that `from_table` reads. Fields with default values are left out."""
    check_change(change)
    fields = lab_table(change.spec) if isinstance(change, Add) else fields_of(change)
    return {"action": change.action, **fields}


def from_table(table: Mapping[str, Any]) -> Change:
    """Return the change that a table describes. Raises `SpecError` with every problem of the table."""
    return _read(table, CHANGES)


def from_record(table: Mapping[str, Any]) -> Change:
    """Return the change that a lab has recorded: what users do, and what it has found out by itself."""
    return _read(table, {**CHANGES, **_FOUND_OUT})


def _read(table: Mapping[str, Any], kinds: Mapping[str, type[Change]]) -> Change:
    if not isinstance(table, Mapping):
        raise SpecError([Problem("", f"found {describe_value(table)}; accepted: a table with an `action`")])
    action = table.get("action")
    if not isinstance(action, str) or action not in kinds:
        found = "is missing, and required" if action is None else f"found {describe_value(action)}"
        hint = did_you_mean(action, kinds) if isinstance(action, str) else ""
        raise SpecError([Problem("action", f"{found}; accepted: {', '.join(kinds)}{hint}")])
    fields = {key: value for key, value in table.items() if key != "action"}
    if kinds[action] is Add:
        draft = draft_part(fields)
        if draft.problems:
            raise SpecError(draft.problems)
        return Add(draft.spec)
    return made_of(kinds[action], **fields)
