"""How tests wait: for what shall happen, never for a time.

A wait ends as soon as its condition holds. `DEADLINE` ends only a wait that would never end, so the machine
may be slow or busy; the whole of a test is bounded by pytest-timeout (pyproject.toml).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import trio

__all__ = ["DEADLINE", "await_until", "wait_until"]

DEADLINE = 60.0  # seconds
_POLL = 0.01


def wait_until(holds: Callable[[], object], what: str = "") -> None:
    """Return when `holds()` is true. AssertionError after `DEADLINE`, with `what` or the condition's name."""
    give_up = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < give_up, _never(holds, what)
        time.sleep(_POLL)  # how often the condition is looked at


async def await_until(holds: Callable[[], Awaitable[object]], what: str = "") -> None:
    """`wait_until` for a condition that has to be awaited."""
    give_up = trio.current_time() + DEADLINE
    while not await holds():
        assert trio.current_time() < give_up, _never(holds, what)
        await trio.sleep(_POLL)  # how often the condition is looked at


def _never(holds: Callable[[], object], what: str) -> str:
    return f"never within {DEADLINE:g} s: {what or getattr(holds, '__name__', holds)}"
