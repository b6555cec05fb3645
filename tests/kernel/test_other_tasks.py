"""Tasks outside a lab's block that use the lab when it ends hear of it as `LabClosedError`, in no group."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio

import patchbay
from patchbay import testing
from patchbay.change import RemoveDevice
from tests.kernel.labs import home_lab
from tests.patience import DEADLINE

pytestmark = pytest.mark.kernel


async def reflect(node: patchbay.Device) -> None:
    async with node.reflector():
        await trio.sleep_forever()


async def serve_stun(node: patchbay.Device) -> None:
    async with testing.serve_stun(node):
        await trio.sleep_forever()


async def open_process(node: patchbay.Device) -> None:
    async with node.open_process(["sleep", "1000"], stdout=subprocess.PIPE) as process:
        await process.wait()


UNDER_WAY: dict[str, Callable[[patchbay.Device], Awaitable[Any]]] = {
    "call": lambda node: node.call(time.sleep, 1000),
    "call_async": lambda node: node.call_async(trio.sleep_forever),
    "run": lambda node: node.run(["sleep", "1000"], stdin=b"x" * 1_000_000),
    "open_process": open_process,
    "reflector": reflect,
    "serve_stun": serve_stun,
}


async def raised_by(call: Callable[[], Awaitable[Any]], errors: list[BaseException]) -> None:
    try:
        await call()
    except Exception as error:
        errors.append(error)


async def until_under_way() -> None:
    """Wait until every task has nothing to do, twice, because a node's first call starts a worker."""
    for _ in range(2):
        await trio.testing.wait_all_tasks_blocked(0.05)


@pytest.mark.parametrize("what", UNDER_WAY)
async def test_what_another_task_does_when_the_lab_ends_raises_lab_closed_error(what: str) -> None:
    errors: list[BaseException] = []
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            async with home_lab() as lab:
                nursery.start_soon(raised_by, partial(UNDER_WAY[what], lab.device("laptop")), errors)
                await until_under_way()
                assert errors == []
    assert [type(error) for error in errors] == [patchbay.LabClosedError]


@pytest.mark.parametrize("what", ["call", "call_async", "reflector", "serve_stun"])
async def test_what_another_task_does_in_a_node_that_is_removed_raises_stale_handle_error(what: str) -> None:
    errors: list[BaseException] = []
    with trio.fail_after(DEADLINE):
        async with home_lab() as lab, trio.open_nursery() as nursery:
            nursery.start_soon(raised_by, partial(UNDER_WAY[what], lab.device("laptop")), errors)
            await until_under_way()
            await lab.apply(RemoveDevice("laptop"))
    assert [type(error) for error in errors] == [patchbay.StaleHandleError]
