"""Open and close one lab, and print how long that took: a process of its own for each measurement.

one_lab.py ROUTERS DEVICES            times of opening and closing, in ms
one_lab.py ROUTERS DEVICES --calls    costs of single calls, in µs, and memory, in KiB
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

# Not `patchbay.open_lab`, whose first use would import it in the middle of the measurement.
from patchbay.lab.lab import Lab
from patchbay.lab.open import open_lab


def toml(routers: int, devices: int) -> str:
    """A lab file: home routers on the exchange, devices spread over them."""
    lines = [f'[[router]]\nname = "r{n}"\npreset = "home"\n' for n in range(routers)]
    lines += [f'[device.d{n}.eth0]\ngateway = "r{n % routers}"\n' for n in range(devices)]
    return "".join(lines)


async def open_and_close(path: Path) -> dict[str, float]:
    started = time.perf_counter()
    async with open_lab(path) as lab:
        opened = time.perf_counter()
        pings = ["ping", "-c1", "-W1", str(lab.ix.ip)]
        await lab.devices[-1].run(pings, capture_stdout=True)
        leaving = time.perf_counter()
    closed = time.perf_counter()
    return {"open_ms": (opened - started) * 1e3, "close_ms": (closed - leaving) * 1e3}


async def median_us(times: int, call: Callable[[], Awaitable[Any]]) -> float:
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        await call()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent) * 1e6


def pss_kib(pid: int) -> int:
    """A process's share of the memory it uses."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise LookupError(f"no Pss of {pid}")


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def kernel_kib() -> int:
    """What the kernel uses for itself."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(
        int(size) for name, size, *_ in lines if name in ("Slab:", "Percpu:", "KernelStack:", "VmallocUsed:")
    )


async def single_calls(path: Path) -> dict[str, float]:
    before = kernel_kib()
    async with open_lab(path) as lab:
        nodes = len(lab.devices) + len(lab.routers) + 1
        kernel = (kernel_kib() - before) / nodes
        return {**await calls(lab), **memory(lab), "kernel_kib_a_node": kernel}


async def calls(lab: Lab) -> dict[str, float]:
    node = lab.devices[0]
    await node.call(os.getpid)

    async def one_socket() -> None:
        node.socket().close()

    return {
        "run_true_us": await median_us(200, lambda: node.run(["true"])),
        "socket_us": await median_us(2000, one_socket),
        "call_us": await median_us(1000, lambda: node.call(os.getpid)),
    }


def memory(lab: Lab) -> dict[str, float]:
    for node in lab.devices:
        node.socket().close()
    (init,) = children(lab._core.session.sandbox.pid)
    workers = [pss_kib(pid) for pid in children(init)]
    return {"agent_kib": pss_kib(init), "worker_kib": statistics.median(workers)}


def main() -> None:
    routers, devices = int(sys.argv[1]), int(sys.argv[2])
    measure = single_calls if "--calls" in sys.argv else open_and_close
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lab.toml"
        path.write_text(toml(routers, devices))
        print(json.dumps(trio.run(measure, path)))


if __name__ == "__main__":
    main()
