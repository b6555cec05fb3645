"""A lab's changes, one line each: applied one after another they give the layout that the lab has."""

from __future__ import annotations

import json
from collections.abc import Iterable

from patchbay.change.base import Change
from patchbay.change.codec import from_record, to_table
from patchbay.change.nodes import Add
from patchbay.config.draft import Draft
from patchbay.layout.allocate import lay_out
from patchbay.layout.layout import Layout
from patchbay.model.lab import LabSpec

__all__ = ["layout_after", "to_line"]


def to_line(change: Change) -> str:
    """Return the change as a line of changes.jsonl."""
    return json.dumps(to_table(change), ensure_ascii=False, allow_nan=False) + "\n"


def layout_after(lines: Iterable[str]) -> Layout:
    """Return the layout after the changes of a changes.jsonl, without a line that is still being written."""
    changes = (from_record(json.loads(line)) for line in lines if line.endswith("\n"))
    # The first change is what the lab was opened with, which chooses the ranges of its addresses.
    opening = next(changes, Add(LabSpec()))
    assert isinstance(opening, Add)
    layout = lay_out(Draft(opening.spec))
    for change in changes:
        layout = change.apply(layout)
    return layout
