"""Changing a lab: one change at a time, each applied as a whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import trio
from attrs import evolve

from patchbay.change.base import Change, Event
from patchbay.change.fields import everything
from patchbay.change.links import UseEmulator
from patchbay.change.names import NameChange
from patchbay.change.nodes import Add
from patchbay.errors import CommandFailed, LabBrokenError, LabDiedError, PatchbayError, SpecError
from patchbay.execute.apply import Outcome, apply, apply_now
from patchbay.lab.garbage import collection_paused
from patchbay.lab.session import Session
from patchbay.layout.layout import Layout, Names
from patchbay.model.lab import LabSpec
from patchbay.model.link import Emulator
from patchbay.plan.change import between
from patchbay.plan.plan import Plan
from patchbay.record.recorder import Recorder
from patchbay.sandbox.netem import has_netem

__all__ = ["Changes"]

# Planning a node takes 0.3 ms.
_LARGE = 20


class _Pending:
    """A layout that the kernel does not have yet, with the changes that lead to it and what they tell."""

    def __init__(self, layout: Layout) -> None:
        self.task = trio.lowlevel.current_task()
        self.layout = layout
        self.changes: list[Change] = []
        self.events: list[Event] = []

    def take(self, change: Change) -> None:
        old, new = self.layout, change.apply(self.layout)
        self.events += change.events(old, new)
        self.changes.append(change)
        self.layout = new

    def begin_with(self, names: Names) -> None:
        """Put the changes of names on top of the names that the lab has by now."""
        layout = evolve(self.layout, names=names)
        for change in self.changes:
            if isinstance(change, NameChange):
                # Another task may have removed the node or the name meanwhile.
                with contextlib.suppress(SpecError):
                    layout = change.apply(layout)
        nodes = {scope for scope in layout.names.scopes() if layout.node(scope)}
        self.layout = evolve(layout, names=layout.names.only(nodes))


async def _planned(old: Layout, new: Layout) -> Plan:
    """Plan a change; a large one in a thread, so that other tasks of the loop go on meanwhile."""
    sizes = (len(layout.devices) + len(layout.forwarders) for layout in (old, new))
    if abs(next(sizes) - next(sizes)) < _LARGE:
        return between(old, new)
    return await trio.to_thread.run_sync(between, old, new)


class Changes:
    """Holds the layout that the kernel has, and applies every change to it."""

    def __init__(self, session: Session, recorder: Recorder, emulator: Emulator) -> None:
        self._layout: Layout | None = None
        self.broken = False
        self._session = session
        self._recorder = recorder
        self._emulator = emulator
        self._one_at_a_time = trio.Lock()
        self._batch: _Pending | None = None
        # Names that were set while another change was on its way, which began without them.
        self._meanwhile: list[NameChange] = []

    # -- looking

    @property
    def applied(self) -> Layout:
        """Return the layout that the kernel has."""
        assert self._layout is not None, "build() comes first"
        return self._layout

    @property
    def visible(self) -> Layout:
        """Return the layout that this task sees: the kernel's, with the changes of the task's own batch."""
        batch = self._own_batch()
        return batch.layout if batch else self.applied

    @property
    def waiting(self) -> Layout | None:
        """Return the layout that an open batch, of whichever task, leads to; None without one."""
        return self._batch.layout if self._batch else None

    def _own_batch(self) -> _Pending | None:
        batch = self._batch
        return batch if batch and batch.task is trio.lowlevel.current_task() else None

    # -- changing

    async def build(self, spec: LabSpec, full: Layout) -> None:
        """Apply the first plan: the exchange, and what the spec names. `full` is the layout of that.

        Nothing is undone on failure, because there is no lab to go back to.
        """
        pending = _Pending(full)
        pending.changes.append(Add(spec))
        pending.events += everything(full)
        await self._decide(pending)
        done: list[Outcome] = []
        try:
            with collection_paused():
                await apply(
                    self._session.sandbox, self._session.services, between(None, pending.layout), done
                )
        except BaseException:
            self._recorder.failure(done)
            raise
        self._recorder.change(done, pending.changes, pending.events)
        self._layout = pending.layout

    async def apply(self, change: Change, *, when: Callable[[], bool] = lambda: True) -> None:
        """Apply a change, now or with this task's batch; nothing if `when` is false by then."""
        if (batch := self._own_batch()) is not None:
            # Planning takes about a millisecond, and the batch may be large.
            await trio.lowlevel.checkpoint()
            batch.take(change)
            return
        async with self._changing():
            if when():
                pending = _Pending(self.applied)
                pending.take(change)
                await self._apply_layout(pending)

    def apply_now(self, change: NameChange) -> None:
        """Apply a change of names, also beside another change: quickly, and without trio."""
        if (batch := self._own_batch()) is not None:
            batch.take(change)
            return
        self._rename(change)
        if self._one_at_a_time.locked():
            self._meanwhile.append(change)

    @contextlib.asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """See `Lab.batch`."""
        if self._own_batch() is not None:
            raise PatchbayError("this task has a batch open already: batches do not nest")
        async with self._changing():
            batch = self._batch = _Pending(self.applied)
            try:
                yield
                await self._apply_layout(batch)
            finally:
                self._batch = None

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        async with self._one_at_a_time:
            self._meanwhile.clear()
            yield

    def _rename(self, change: NameChange) -> None:
        old, new = self.applied, change.apply(self.applied)
        done: list[Outcome] = []
        try:
            apply_now(self._session.sandbox, between(old, new), done)
        except CommandFailed:
            with self._undoing(done) as undone:
                apply_now(self._session.sandbox, between(new, old, undoing=True), undone)
            raise
        self._recorder.change(done, [change], change.events(old, new))
        self._take(new)

    async def _apply_layout(self, pending: _Pending) -> None:
        """Apply the pending layout. On failure apply the layout that the kernel had."""
        await self._decide(pending)
        if self._meanwhile:
            pending.begin_with(self.applied.names)
            self._meanwhile.clear()
        done: list[Outcome] = []
        try:
            with collection_paused():
                plan = await _planned(self.applied, pending.layout)
                await apply(self._session.sandbox, self._session.services, plan, done)
        except LabDiedError:
            raise  # with the agent everything went: there is nothing to undo
        except BaseException:
            await self._undo(pending.layout, done)
            raise
        self._recorder.change(done, pending.changes, pending.events)
        self._take(pending.layout)
        for change in self._meanwhile:
            with contextlib.suppress(SpecError):
                self._rename(change)

    async def _undo(self, new: Layout, done: list[Outcome]) -> None:
        plan = between(new, self.applied, undoing=True)
        with self._undoing(done) as undone, trio.CancelScope(shield=True):
            await apply(self._session.sandbox, self._session.services, plan, undone)

    @contextlib.contextmanager
    def _undoing(self, done: list[Outcome]) -> Iterator[list[Outcome]]:
        """Note what was done and what undid it. A failure of the block breaks the lab."""
        undone: list[Outcome] = []
        try:
            yield undone
        except PatchbayError as error:
            self.broken = True
            raise LabBrokenError(
                f"a change failed and could not be undone; open a new lab:\n{error}"
            ) from error
        finally:
            self._recorder.failure([*done, *undone])

    async def _decide(self, pending: _Pending) -> None:
        """Choose an emulator, once and when the first link needs one."""
        if pending.layout.emulator is not Emulator.AUTO:
            return
        if self._emulator is Emulator.AUTO and pending.layout.wires:
            netem = await has_netem(self._session.sandbox)
            self._emulator = Emulator.NETEM if netem else Emulator.USERSPACE
        if self._emulator is not Emulator.AUTO:
            pending.take(UseEmulator(self._emulator))

    def _take(self, new: Layout) -> None:
        """Take the layout that the kernel has now, and let the nodes' processes follow it."""
        old, self._layout = self._layout, new
        if old is not None:
            self._session.follow(old, new)
