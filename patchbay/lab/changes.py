"""Changing a lab: one change at a time, each applied as a whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

import trio
from attrs import evolve

from patchbay.change.base import Change, Event
from patchbay.change.fields import everything
from patchbay.change.links import UseEmulator
from patchbay.change.names import NameChange, rebased
from patchbay.change.nodes import Add, RemoveDevice, RemoveRouter
from patchbay.errors import CommandFailed, LabBrokenError, LabDiedError, PatchbayError
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
    """A layout that the kernel does not have yet, with the changes that lead to it and their events."""

    def __init__(self, layout: Layout) -> None:
        self.task = trio.lowlevel.current_task()
        self.layout = layout
        self._taken: list[tuple[Change, Sequence[Event]]] = []
        # The names that the changes are on top of.
        self._base = layout.names

    def take(self, change: Change) -> None:
        old, self.layout = self.layout, change.apply(self.layout)
        self.note(change, change.events(old, self.layout))

    def note(self, change: Change, events: Iterable[Event]) -> None:
        """Note a change that the layout has already."""
        self._taken.append((change, [*events]))

    @property
    def changes(self) -> list[Change]:
        return [change for change, _ in self._taken]

    @property
    def events(self) -> list[Event]:
        return [event for _, events in self._taken for event in events]

    def rebase(self, names: Names) -> None:
        """Put the changes on top of the names that the lab has by now, because other tasks may have set some.

        Then the changes of all tasks give the layout in the order in which they are recorded.
        """
        if names == self._base:
            return
        self._base = names
        taken, self._taken = self._taken, []
        self.layout = evolve(self.layout, names=names)
        for change, events in taken:
            if isinstance(change, NameChange):
                if (left := rebased(change, self.layout)) is not None:
                    self.take(left)
                continue
            self.note(change, events)
            match change:
                case RemoveDevice(device=node) | RemoveRouter(router=node):
                    self.layout = evolve(self.layout, names=self.layout.names.without(node))


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
        pending.note(Add(spec), everything(full))
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
        async with self._one_at_a_time:
            if when():
                pending = _Pending(self.applied)
                pending.take(change)
                await self._apply_layout(pending)

    def apply_now(self, change: NameChange) -> None:
        """Apply a change of names, also beside another change: quickly, and without trio."""
        if (batch := self._own_batch()) is not None:
            batch.take(change)
            return
        new = change.apply(self.applied)
        done = self._set_names(new)
        self._recorder.change(done, [change], change.events(self.applied, new))
        self._take(new)

    @contextlib.asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """See `Lab.batch`."""
        if self._own_batch() is not None:
            raise PatchbayError("this task has a batch open already: batches do not nest")
        async with self._one_at_a_time:
            batch = self._batch = _Pending(self.applied)
            try:
                yield
                await self._apply_layout(batch)
            finally:
                self._batch = None

    def _set_names(self, new: Layout) -> list[Outcome]:
        """Apply a layout that differs in names alone, at once. On failure apply the old names."""
        done: list[Outcome] = []
        try:
            apply_now(self._session.sandbox, between(self.applied, new), done)
        except CommandFailed:
            with self._undoing(done) as undone:
                apply_now(self._session.sandbox, between(new, self.applied, undoing=True), undone)
            raise
        return done

    async def _apply_layout(self, pending: _Pending) -> None:
        """Apply the pending layout. On failure apply the layout that the kernel had."""
        await self._decide(pending)
        pending.rebase(self.applied.names)
        planned = pending.layout
        done: list[Outcome] = []
        try:
            with collection_paused():
                plan = await _planned(self.applied, planned)
                await apply(self._session.sandbox, self._session.services, plan, done)
        except LabDiedError:
            raise  # with the agent everything went: there is nothing to undo
        except BaseException:
            await self._undo(planned, done)
            raise
        pending.rebase(self.applied.names)
        self._recorder.change(done, pending.changes, pending.events)
        self._take(planned)
        if pending.layout.names != planned.names:
            # Other tasks set names while the plan was applied. Their changes are recorded already.
            self._recorder.change(self._set_names(pending.layout), (), ())
            self._take(pending.layout)

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
