"""Measure the waits that people feel most, in a process of its own: one line of JSON, times in ms.

waits.py ping         a whole program: a lab, a home router, a laptop, and a ping through its NAT
waits.py open         2 + 2 as the first lab of a process, and as a later one
waits.py add          10 + 100 from a file, in a batch, and one by one
waits.py loop         how long another task waits at most while 100 + 1000 are added in a batch
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
import trio.lowlevel

import patchbay
from tests.bench.one_lab import toml

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


async def opened(spec: Any, fill: Callable[[patchbay.Lab], Awaitable[None]] | None = None) -> float:
    started = time.perf_counter()
    async with patchbay.open_lab(spec) as lab:
        if fill:
            await fill(lab)
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


async def add_in_batch(lab: patchbay.Lab) -> None:
    async with lab.batch():
        await add_all(lab)


async def add() -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lab.toml"
        path.write_text(toml(10, 100))
        await opened(None)  # so that all is loaded
        return {
            "from_file": await opened(path),
            "in_batch": await opened(None, add_in_batch),
            "one_by_one": await opened(None, add_all),
        }


async def loop() -> Measured:
    """Return the longest wait of another task while a large batch is added and applied."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await trio.lowlevel.checkpoint()  # a turn of the loop
            longest = max(longest, time.perf_counter() - before)

    async with patchbay.open_lab() as lab, trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        async with lab.batch():
            routers = [await lab.add_router(f"r{n}", preset="home") for n in range(100)]
            for n in range(1000):
                await lab.add_device(f"d{n}", uplink=routers[n % 100])
        nursery.cancel_scope.cancel()
    return {"longest_wait": longest * 1e3}


def pss_kib(pid: int) -> int:
    """Return a process's share of the memory it uses, 0 for one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except ProcessLookupError:  # a prepared interpreter that was not needed any more
        return 0
    (line,) = (line for line in lines if line.startswith("Pss:"))
    return int(line.split()[1])


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


WHAT = {"ping": ping, "open": open_two, "add": add, "use": use, "loop": loop}


if __name__ == "__main__":
    print(json.dumps(trio.run(WHAT[sys.argv[1]])))
