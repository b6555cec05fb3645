"""Performing each kind of step."""

from __future__ import annotations

from typing import assert_never

import trio

from patchbay.sim.live.context import StepContext
from patchbay.sim.spec.asserts import NotANumber, holds, parse_check
from patchbay.sim.spec.fields import Port
from patchbay.sim.spec.steps import AssertStep, RunStep, SpawnStep, Step, WaitForStep, WaitStep

__all__ = ["perform"]


async def perform(step: Step, context: StepContext) -> None:
    """Perform a step. Raises `StepFailed`."""
    match step:
        case RunStep():
            await _run(step, context)
        case SpawnStep():
            await _spawn(step, context)
        case WaitForStep():
            await _wait_for(step, context)
        case WaitStep():
            await trio.sleep(step.duration)
        case AssertStep():
            await _assert(step, context)
        case _:
            assert_never(step)


async def _run(step: RunStep, context: StepContext) -> None:
    argv, env = await context.command(step)
    process = context.process(step, argv, env)
    await process.run()
    process.check_end()
    context.measure(process)


async def _spawn(step: SpawnStep, context: StepContext) -> None:
    argv, env = await context.command(step)
    process = context.process(step, argv, env)
    await context.in_background(process)
    if isinstance(step.ready, Port):
        await context.listening(process, step.ready)
    elif step.ready is not None:
        await context.capture(process, step.ready)
    if step.ready_after is not None:
        # If it ends meanwhile, the runner looks at how before it goes on.
        with trio.move_on_after(step.ready_after):
            await process.output.ended.wait()


async def _wait_for(step: WaitForStep, context: StepContext) -> None:
    process = context.process_of(step.id)
    await process.output.ended.wait()
    process.check_end()
    context.measure(process)


async def _assert(step: AssertStep, context: StepContext) -> None:
    failures = []
    for check in map(parse_check, step.all_checks):
        seen = await context.value(check.ref)
        try:
            why = "" if holds(check, seen.value) else f"{check}"
        except NotANumber as error:
            why = f"{check}: {error}"
        if why:
            failures.append(f"{why}\n  seen       {seen.value!r}\n  from       {seen.origin}")
    if failures:
        raise context.unmet("\n".join(failures))
