"""The first packet to a new node below a shared downlink is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import trio

import patchbay
from patchbay import Device, Lab
from tests.patience import DEADLINE

pytestmark = pytest.mark.kernel

# So much that what a node sends by itself when it comes up is still on its way when it pings.
LATE = {"latency_ms": 100}
HOW_MANY = 34


async def one_by_one(lab: Lab) -> AsyncIterator[Device]:
    for number in range(HOW_MANY):
        yield await lab.add_device(f"d{number}", uplink="r")


async def in_a_batch(lab: Lab) -> AsyncIterator[Device]:
    async with lab.batch():
        devices = [await lab.add_device(f"d{number}", uplink="r") for number in range(HOW_MANY)]
    for device in devices:
        yield device


async def answered(devices: AsyncIterator[Device], target: str) -> int:
    """Let each device ping as soon as it is there. Return how many are answered."""
    found: list[bool] = []

    async def ping(device: Device) -> None:
        argv = ["ping", "-n", "-c1", f"-W{DEADLINE:g}", target]
        done = await device.run(argv, check=False, capture_stdout=True)
        found.append(done.returncode == 0)

    async with trio.open_nursery() as nursery:
        async for device in devices:
            nursery.start_soon(ping, device)
    return found.count(True)


@pytest.mark.parametrize("added", [one_by_one, in_a_batch], ids=lambda added: added.__name__)
async def test_the_first_packet_of_every_new_device_is_answered(
    emulator: str, added: Callable[[Lab], AsyncIterator[Device]]
) -> None:
    async with patchbay.open_lab(emulator=emulator) as lab:
        await lab.add_router("r", downlink=LATE)
        assert await answered(added(lab), str(lab.ix.ip)) == HOW_MANY


async def test_the_first_packet_of_every_device_of_a_file_is_answered(emulator: str) -> None:
    spec = {
        "router": [{"name": "r", "downlink": LATE}],
        "device": {"d": {"count": HOW_MANY, "eth0": {"gateway": "r"}}},
    }

    async def devices(lab: Lab) -> AsyncIterator[Device]:
        for device in lab.devices:
            yield device

    async with patchbay.open_lab(spec, emulator=emulator) as lab:
        assert await answered(devices(lab), str(lab.ix.ip)) == HOW_MANY
