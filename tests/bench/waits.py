"""What people wait for most, measured in a process of its own: one line of JSON, times in ms.

waits.py ping         a whole program: a lab, a home router, a laptop, and a ping through its NAT
waits.py open         2 + 2 as the first lab of a process, and as a later one
waits.py add          10 + 100 from a file, in a batch, and one by one
waits.py use          single operations in 10 + 100, and the memory that they take
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio
from one_lab import toml

import patchbay

PING = ["ping", "-c1", "-W1"]
# Seconds: the kernel frees a lab of 110 nodes.
TEARDOWN = 0.8

Measured = dict[str, float]


async def timed(act: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await act()
    return (time.perf_counter() - started) * 1e3


async def median(times: int, act: Callable[[], Awaitable[object]]) -> float:
    return statistics.median([await timed(act) for _ in range(times)])


async def ping() -> Measured:
    async with patchbay.open_lab() as lab:
        home = await lab.add_router("home", preset="home")
        laptop = await lab.add_device("laptop", uplink=home)
        await laptop.run([*PING, str(lab.ix.ip)], capture_stdout=True)
    return {}


async def opened(spec: Any) -> float:
    started = time.perf_counter()
    async with patchbay.open_lab(spec):
        took = (time.perf_counter() - started) * 1e3
    await trio.sleep(TEARDOWN)  # the kernel's teardown, which nothing tells the end of
    return took


async def open_two() -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lab.toml"
        path.write_text(toml(2, 2))
        first = await opened(path)
        return {"open_first": first, "open_later": statistics.median([await opened(path) for _ in range(5)])}


async def add_all(lab: patchbay.Lab) -> None:
    routers = [await lab.add_router(f"r{n}", preset="home") for n in range(10)]
    for n in range(100):
        await lab.add_device(f"d{n}", uplink=routers[n % 10])


async def added(*, batch: bool) -> float:
    started = time.perf_counter()
    async with patchbay.open_lab() as lab:
        if batch:
            async with lab.batch():
                await add_all(lab)
        else:
            await add_all(lab)
        took = (time.perf_counter() - started) * 1e3
    await trio.sleep(TEARDOWN)  # the kernel's teardown, which nothing tells the end of
    return took


async def add() -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lab.toml"
        path.write_text(toml(10, 100))
        await opened(None)  # so that all is loaded
        return {
            "from_file": await opened(path),
            "in_batch": await added(batch=True),
            "one_by_one": await added(batch=False),
        }


def pss_kib(pid: int) -> int:
    """Return a process's share of the memory it uses."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise LookupError(f"no Pss of {pid}")


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    children = (
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    )
    return [pid, *(each for child in children for each in family(child))]


def memory_mib() -> float:
    return sum(map(pss_kib, family(os.getpid()))) / 1024


async def use() -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lab.toml"
        path.write_text(toml(10, 100))
        async with patchbay.open_lab(path) as lab:
            return {**await single(lab.devices[0]), **await memory(lab)}


async def single(node: patchbay.Node) -> Measured:
    async def popen() -> None:
        node.popen(["true"]).wait()

    async def plain() -> None:
        node.socket(socket.AF_INET, socket.SOCK_DGRAM).close()

    async def bound() -> None:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.bind(("0.0.0.0", 0))

    await node.run(["true"])
    first_call = await timed(lambda: node.call(os.getpid))
    found = {
        "popen": await median(100, popen),
        "run": await median(200, lambda: node.run(["true"])),
        "socket": await median(2000, plain),
        "call_first": first_call,
        "call": await median(1000, lambda: node.call(os.getpid)),
    }
    with node.enter():
        found["enter"] = await median(1000, bound)
    return found


async def memory(lab: patchbay.Lab) -> Measured:
    for device in lab.devices:
        device.socket().close()
    used = memory_mib()
    for device in lab.devices[:20]:
        await device.call(os.getpid)
    return {"memory": used, "memory_calls": memory_mib()}


WHAT = {"ping": ping, "open": open_two, "add": add, "use": use}


if __name__ == "__main__":
    print(json.dumps(trio.run(WHAT[sys.argv[1]])))
