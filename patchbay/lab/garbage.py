"""Keeping Python from looking for garbage while a large plan is in memory."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

__all__ = ["collection_paused"]

_lock = threading.Lock()
_pausing = 0
_was_enabled = False


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Pause the collection of cycles in this block, of which plans have none.

    A plan for 1000 nodes has half a million objects, and each look at all of them stops the event loop for
    50 ms. Blocks of several labs may overlap. A program that has switched the collector off keeps it off.
    """
    global _pausing, _was_enabled  # noqa: PLW0603  a process has one collector
    with _lock:
        if _pausing == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _pausing += 1
    try:
        yield
    finally:
        with _lock:
            _pausing -= 1
            if _pausing == 0 and _was_enabled:
                _call_all_old()
                gc.enable()


def _call_all_old() -> None:
    """Move all objects to the oldest generation, which is not looked at for now. Both calls splice lists.

    Otherwise the next look at young objects would find those of the whole plan. A program that has frozen
    objects of its own is left alone.
    """
    if gc.get_freeze_count() == 0:
        gc.freeze()
        gc.unfreeze()
