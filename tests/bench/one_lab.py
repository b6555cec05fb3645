"""Open and close one lab, and print how long that took in ms: a process of its own for each measurement.

one_lab.py ROUTERS DEVICES
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import trio

# So that nothing is loaded in the middle of the measurement.
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


def main() -> None:
    routers, devices = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lab.toml"
        path.write_text(toml(routers, devices))
        print(json.dumps(trio.run(open_and_close, path)))


if __name__ == "__main__":
    main()
