"""A lab leaves the event loop to others while it works."""

from __future__ import annotations

import gc

import pytest
import trio

import patchbay

pytestmark = pytest.mark.kernel


async def test_no_look_at_all_objects_stops_the_loop_while_a_large_batch_is_applied() -> None:
    enabled = []

    async def watch() -> None:
        while True:
            enabled.append(gc.isenabled())
            await trio.lowlevel.checkpoint()  # a turn of the loop

    async with patchbay.open_lab() as lab, trio.open_nursery() as nursery:
        async with lab.batch():
            home = await lab.add_router("home", preset="home")
            for number in range(30):
                await lab.add_device(f"d{number}", uplink=home)
            nursery.start_soon(watch)
        nursery.cancel_scope.cancel()
        assert gc.isenabled()
    # From the first turn of the planning to the last of the application, whose end switches it on.
    assert True not in enabled[1:] and len(enabled) > 5
