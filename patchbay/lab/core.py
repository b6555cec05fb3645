"""The state that a lab's handles share: its layout, the one way to change it, and what runs in its nodes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from patchbay.change.base import Change
from patchbay.change.names import NameChange
from patchbay.change.nodes import RemoveDevice, RemoveRouter
from patchbay.errors import LabBrokenError, LabClosedError, PatchbayError
from patchbay.lab.changes import Changes
from patchbay.lab.links import Links
from patchbay.lab.losses import Losses
from patchbay.lab.session import Session
from patchbay.layout.layout import Layout, NodeLayout
from patchbay.model.link import Emulator
from patchbay.record.recorder import Recorder
from patchbay.sandbox.view import NodeView

if TYPE_CHECKING:
    from patchbay.lab.lab import Lab

__all__ = ["Core"]

HandleT = TypeVar("HandleT")


class Core:
    """A live lab, without the handles that users hold."""

    def __init__(
        self, session: Session, recorder: Recorder, *, label: str, prefix: str, emulator: Emulator
    ) -> None:
        self.label = label
        self.prefix = prefix
        self.session = session
        self.recorder = recorder
        self.changes = Changes(session, recorder, emulator)
        self.losses = Losses(self.changes, session, recorder.event)
        self.links = Links(self.changes, session, self.losses)
        # The facade that handles give to users.
        self.lab: Lab
        self._closed = False
        self._handles: dict[tuple[type, str], Any] = {}

    def handle(self, kind: Callable[[Core, str], HandleT], name: str) -> HandleT:
        """Return the handle of a node: one and the same for as long as the node is there."""
        key = (cast(type, kind), name)
        if key not in self._handles:
            self._handles[key] = kind(self, name)
        return self._handles[key]  # type: ignore[no-any-return]

    def _let_go(self) -> None:
        """Make the handles of nodes that are gone stale for good, also where their names come back."""
        there = [layout for layout in (self.changes.applied, self.changes.waiting) if layout]
        self._handles = {key: it for key, it in self._handles.items() if not it.let_go(*there)}

    @property
    def visible(self) -> Layout:
        """Return the layout that this task sees."""
        return self.changes.visible

    async def apply(self, change: Change) -> None:
        """Apply a change, now or with this task's batch. On failure the lab is as it was."""
        self.check_open()
        async with self.links.recovering(change):
            await self.changes.apply(change)
        if isinstance(change, RemoveDevice | RemoveRouter):
            self._let_go()

    @contextlib.asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """See `Lab.batch`."""
        self.check_open()
        try:
            async with self.changes.batch():
                yield
        finally:
            self._let_go()

    def apply_now(self, change: NameChange) -> None:
        """Apply a change of names at once."""
        self.check_open()
        self.changes.apply_now(change)

    def close(self) -> None:
        """Let every further call raise `LabClosedError`."""
        self.recorder.event("lab_stopping")
        self._closed = True
        self.recorder.close()

    def check_open(self) -> None:
        """Raise the error of a lab that cannot be used (any more)."""
        if self._closed:
            raise LabClosedError()
        if self.session.died:
            raise self.session.died
        if self.changes.broken:
            raise LabBrokenError(f"lab '{self.label}' is broken: a failed change could not be undone")

    def view_of(self, node: NodeLayout) -> NodeView:
        """Return what runs things in a node that the kernel has."""
        return self.session.view(node, self.changes.applied)

    def node_file(self, node: str, name: str) -> Path:
        """Return a path in the node's folder of the run."""
        if self.recorder.folder is None:
            raise PatchbayError(
                "this lab writes no files: give open_lab an `outdir`, or set $PATCHBAY_OUTDIR"
            )
        return self.recorder.folder.node_file(node, name)

    def output_logs(self, node: str) -> Sequence[IO[bytes] | None]:
        """Open logs for a command's stdout and stderr, where the lab writes files."""
        if self.recorder.folder is None:
            return (None, None)
        return [self.node_file(node, f"{name}.log").open("ab", buffering=0) for name in ("stdout", "stderr")]

    def event(self, kind: str, **fields: Any) -> None:
        self.recorder.event(kind, **fields)
