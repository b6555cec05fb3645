"""Changing a lab: one change at a time, each there as a whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Generic, TypeVar

import trio
from attrs import evolve

from patchbay.errors import LabBrokenError, LabDiedError, PatchbayError
from patchbay.execute.apply import Outcome, apply, apply_now
from patchbay.layout.allocate import extend
from patchbay.layout.layout import Layout, Names, NodeLayout
from patchbay.model.lab import LabSpec
from patchbay.model.link import Emulator
from patchbay.model.names import NsName
from patchbay.plan.change import between
from patchbay.plan.hosts import name_files
from patchbay.plan.plan import Plan, forgiving
from patchbay.record.recorder import Recorder
from patchbay.sandbox.helpers import Helpers
from patchbay.sandbox.netem import has_netem
from patchbay.sandbox.sandbox import Sandbox

__all__ = ["Changes"]

HandleT = TypeVar("HandleT")


class _Batch(Generic[HandleT]):
    """Additions that wait to be applied together."""

    def __init__(self, layout: Layout) -> None:
        self.task = trio.lowlevel.current_task()
        self.layout = layout
        self.handles: list[HandleT] = []


class Changes(Generic[HandleT]):
    """The layout and the names that the kernel has now, and the only way to others.

    `handle` makes the handle of a new node, `settle` is told of handles whether their nodes came to be.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        helpers: Helpers,
        recorder: Recorder,
        emulator: Emulator,
        handle: Callable[[NodeLayout], HandleT],
        settle: Callable[[Iterable[HandleT], bool], None],
    ) -> None:
        self._layout: Layout | None = None
        self.names = Names()
        self.broken = False
        self._sandbox = sandbox
        self._helpers = helpers
        self._emulator = emulator
        self._recorder = recorder
        self._handle = handle
        self._settle = settle
        self._one_at_a_time = trio.Lock()
        self._batch: _Batch[HandleT] | None = None

    async def build(self, full: Layout) -> None:
        """The first plan: the exchange, and what the spec names. Nothing is undone: there is no lab yet."""
        done: list[Outcome] = []
        full = await self._decided(full)
        try:
            await self._apply(between(None, full), done)
            apply_now(self._sandbox, name_files(None, self.names, {}), done)
        except BaseException:
            self._recorder.failure(done)
            raise
        self._recorder.change(done, None, full)
        self._layout = full
        self._settle([self._handle(node) for node in full.nodes()], True)

    async def add(self, spec: LabSpec) -> list[HandleT]:
        """Add nodes, now or with this task's batch; their handles."""
        if (batch := self._own_batch()) is not None:
            old, batch.layout = batch.layout, extend(batch.layout, spec)
            handles = self._new_handles(old, batch.layout)
            batch.handles += handles
            return handles
        async with self._one_at_a_time:
            old = self.standing
            new = extend(old, spec)
            await self._become(new)
            handles = self._new_handles(old, new)
            self._settle(handles, True)
            return handles

    async def alter(self, change: Callable[[Layout], Layout]) -> None:
        """Change what is there, now or with this task's batch."""
        if (batch := self._own_batch()) is not None:
            batch.layout = change(batch.layout)
            return
        async with self._one_at_a_time:
            await self._become(change(self.standing))

    async def _decided(self, layout: Layout) -> Layout:
        """The layout with an emulator, where it needs one."""
        if self._emulator is Emulator.AUTO and layout.wires:
            netem = await has_netem(self._sandbox)
            self._emulator = Emulator.NETEM if netem else Emulator.USERSPACE
        return evolve(layout, emulator=self._emulator)

    async def _apply(self, plan: Plan, done: list[Outcome]) -> None:
        await apply(self._sandbox, self._helpers, plan, done)

    @contextlib.asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """See `Lab.batch`."""
        if self._own_batch() is not None:
            raise PatchbayError("this task has a batch open already: batches do not nest")
        async with self._one_at_a_time:
            batch = self._batch = _Batch(self.standing)
            applied = False
            try:
                yield
                await self._become(batch.layout)
                applied = True
            finally:
                self._batch = None
                self._settle(batch.handles, applied)

    def set_names(self, new: Names, ns_of: Mapping[str, NsName]) -> None:
        """Change what names stand for. Quick, and without trio."""
        done: list[Outcome] = []
        apply_now(self._sandbox, name_files(self.names, new, ns_of), done)
        layout = self.standing
        self._recorder.change(done, layout, layout)
        self.names = new

    def _own_batch(self) -> _Batch[HandleT] | None:
        batch = self._batch
        return batch if batch and batch.task is trio.lowlevel.current_task() else None

    @property
    def present(self) -> Layout:
        """The layout that this task sees: the kernel's, and what its batch has added."""
        batch = self._own_batch()
        return batch.layout if batch else self.standing

    @property
    def standing(self) -> Layout:
        """The layout that the kernel has."""
        assert self._layout is not None, "build() comes first"
        return self._layout

    def _new_handles(self, old: Layout, new: Layout) -> list[HandleT]:
        before = {node.ns for node in old.nodes()}
        return [self._handle(node) for node in new.nodes() if node.ns not in before]

    async def _become(self, new: Layout) -> None:
        """Change the kernel from the present layout to `new`; on failure back, as if never called."""
        old = self.standing
        done: list[Outcome] = []
        new = await self._decided(new)
        try:
            await self._apply(between(old, new), done)
        except LabDiedError:
            raise  # with the agent everything went: there is nothing to undo
        except BaseException:
            await self._undo(new, old, done)
            raise
        self._recorder.change(done, old, new)
        self._layout = new

    async def _undo(self, new: Layout, old: Layout, done: list[Outcome]) -> None:
        undone: list[Outcome] = []
        try:
            with trio.CancelScope(shield=True):
                await self._apply(forgiving(between(new, old)), undone)
        except PatchbayError as error:
            self.broken = True
            raise LabBrokenError("a change failed and could not be undone; open a new lab") from error
        finally:
            self._recorder.failure([*done, *undone])
