"""Runs sims: opens each one's lab, performs its steps in order, and ends what is left over."""

from __future__ import annotations

import math
import signal
from collections.abc import Sequence

import trio

from patchbay.errors import HostError, PatchbayError, StepFailed
from patchbay.lab.open import open_lab
from patchbay.sim.live.context import LiveSim, StepContext
from patchbay.sim.live.perform import perform
from patchbay.sim.spec.durations import in_words
from patchbay.sim.spec.outcome import (
    SimBegan,
    SimEnded,
    SimOutcome,
    Status,
    StepBegan,
    StepEnded,
    StepOutcome,
    Tick,
    Watch,
)
from patchbay.sim.spec.refs import parse_ref

__all__ = ["run_sim", "run_sims"]

_MOMENT = 0.25


async def run_sims(
    sims: Sequence[SimOutcome], watch: Watch, *, jobs: int = 1, timeout: float | None = None
) -> signal.Signals | None:
    """Run all of them, `jobs` at once; what becomes of them is noted in them.

    `timeout`, in seconds, is used instead of the sims' own. SIGINT and SIGTERM end what runs, cleanly;
    the signal is returned. Raises `HostError` if this machine cannot run labs.
    """
    interrupted: list[signal.Signals] = []
    lacks: list[HostError] = []
    waiting = iter(sims)

    async def work_off(scope: trio.CancelScope) -> None:
        try:
            for sim in waiting:
                await run_sim(sim, watch, timeout)
        except HostError as error:
            lacks.append(error)
            scope.cancel()

    async with trio.open_nursery() as watching:
        await watching.start(_cancel_on_signal, watching.cancel_scope, interrupted)
        watching.start_soon(_tell_the_time, watch)
        async with trio.open_nursery() as working:
            for _ in range(jobs):
                working.start_soon(work_off, working.cancel_scope)
        watching.cancel_scope.cancel()
    if lacks:
        raise lacks[0]
    return interrupted[0] if interrupted else None


async def _cancel_on_signal(
    scope: trio.CancelScope,
    seen: list[signal.Signals],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            seen.append(signal.Signals(number))
            scope.cancel()


async def _tell_the_time(watch: Watch) -> None:
    while True:
        await trio.sleep(_MOMENT)
        watch(Tick())


async def run_sim(outcome: SimOutcome, watch: Watch, timeout: float | None = None) -> None:
    """Run one sim. Its failure is noted in `outcome`, not raised; `HostError` is raised."""
    limit = timeout if timeout is not None else outcome.sim.timeout
    outcome.begin()
    watch(SimBegan(outcome))
    try:
        with trio.move_on_after(limit if limit is not None else math.inf) as scope:
            await _in_its_lab(outcome, watch)
            outcome.end(Status.PASSED)
        if scope.cancelled_caught:
            outcome.end(Status.FAILED, _too_slow(outcome, limit or 0.0))
    except HostError:
        raise
    except PatchbayError as error:
        outcome.end(Status.FAILED, "\n".join([str(error), *getattr(error, "__notes__", ())]))
    finally:
        if outcome.status is Status.RUNNING:
            outcome.end(Status.INTERRUPTED)
        watch(SimEnded(outcome))


def _too_slow(outcome: SimOutcome, limit: float) -> str:
    text = f"the sim did not end within its timeout of {in_words(limit)}"
    for step in outcome.steps:
        if step.status is Status.INTERRUPTED:
            about = f"\n{step.evidence}" if step.evidence else ""
            return f"{text}; it was at {step.planned.label}{about}"
    return text


async def _in_its_lab(outcome: SimOutcome, watch: Watch) -> None:
    failure: PatchbayError | None = None
    async with open_lab(outcome.sim.lab, label=outcome.sim.name, run_dir=outcome.folder) as lab:
        live = LiveSim(outcome, lab, watch)
        try:
            async with trio.open_nursery() as live.nursery:
                try:
                    await _steps(live)
                except PatchbayError as error:
                    failure = error  # carried round the nursery, which would wrap it in a group
                live.nursery.cancel_scope.cancel()
        finally:
            live.close()
    if failure is not None:
        raise failure


async def _steps(live: LiveSim) -> None:
    for step in live.outcome.steps:
        _look_at_background(live)
        await _step(live, step)
    _look_at_background(live)


def _look_at_background(live: LiveSim) -> None:
    """Raises `StepFailed` if a spawned process has died."""
    for process in live.processes:
        try:
            process.check_end()
        except StepFailed as error:
            step = process.outcome
            step.end(Status.FAILED, str(error))
            live.watch(StepEnded(live.outcome, step))
            raise


async def _step(live: LiveSim, step: StepOutcome) -> None:
    planned, context = step.planned, StepContext(live, step)
    limit = planned.step.timeout
    step.begin()
    live.watch(StepBegan(live.outcome, step))
    try:
        with trio.move_on_after(limit if limit is not None else math.inf) as scope:
            for text in planned.step.requires:
                await context.value(parse_ref(text))
            await perform(planned.step, context)
            step.end(Status.PASSED)
        if scope.cancelled_caught:
            raise context.too_slow(limit or 0.0)
    except PatchbayError as error:
        step.end(Status.FAILED, str(error))
        for process in live.processes:
            if process.outcome is not step and (wrong := process.wrong_end()):
                error.add_note(f"  before     {process.outcome.planned.label}: {wrong}")
        raise
    finally:
        if step.status is Status.RUNNING:
            step.end(Status.INTERRUPTED)
            step.evidence = context.evidence()
        live.watch(StepEnded(live.outcome, step))
