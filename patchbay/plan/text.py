"""A plan as text: the commands in the order and the words of the trace that follows from it."""

from __future__ import annotations

from collections.abc import Iterator

from patchbay.plan.plan import Plan
from patchbay.tools.commands import describe, heading

__all__ = ["as_text"]


def as_text(plan: Plan, title: str) -> str:
    """Return the commands as text, each group below a heading that says what it is for."""
    return f"# {title}: what would be run, inside namespaces of its own\n" + "".join(_blocks(plan))


def _blocks(plan: Plan) -> Iterator[str]:
    before = None
    for command in plan:
        if (title := heading(command)) != before:
            before = title
            yield title
        yield describe(command)
