"""What links cost, and print it: a process of its own for each measurement.

one_link.py EMULATOR CONDITION LINKS

CONDITION is "none" (no emulator in the way), "idle" (one with nothing to do), "delay" (25 ms each way) or
"loss" (25 ms and 1 %); LINKS are used at once. Gbit/s of TCP, packets a second, and how late packets are at
10,000 a second, all of the links together.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

from patchbay.lab.lab import Lab
from patchbay.lab.open import open_lab

DELAY_MS = 25
CONDITIONS: dict[str, dict[str, float]] = {
    "none": {},
    "idle": {"latency_ms": DELAY_MS},
    "delay": {"latency_ms": DELAY_MS},
    "loss": {"latency_ms": DELAY_MS, "loss_pct": 1},
}
SECONDS = 3
PACKETS_A_SECOND = 10_000
SO_TIMESTAMPNS = 35  # include/uapi/asm-generic/socket.h

FLOOD = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect((sys.argv[1], 9))
send, data = sock.send, b"." * 64
while True:
    try:
        send(data)
    except OSError:
        pass
"""


def topology(condition: str, links: int) -> dict[str, Any]:
    link = {"link": CONDITIONS[condition]} if condition != "none" else {}
    return {
        "router": [{"name": "dc", "preset": "datacenter"}, {"name": "r", "preset": "datacenter"}],
        "device": {
            "server": {"eth0": {"gateway": "dc"}},
            **{f"d{n}": {"eth0": {"gateway": "r", **link}} for n in range(links)},
        },
    }


async def made_idle(lab: Lab) -> None:
    """Links without a condition have no emulator: theirs is told to do nothing."""
    for wire in lab._core.changes.applied.wires.values():
        words = ["--far", wire.far.name, "--near", wire.near.name, "--seed", "1", "--up", "--down"]
        name = f"patchbay.emulator.relay --far {wire.far.name}"
        await lab._core.session.services.ask(wire.ns, name, {"set": words})


def relays_cpu() -> float:
    """Seconds of processor time that relays have had."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text() == "relay\n":
                ticks += sum(map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:13]))
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


async def tcp(lab: Lab, links: int) -> dict[str, float]:
    server, rates = lab.device("server"), []

    async def client(number: int) -> None:
        argv = ["iperf3", "-J", "-c", str(server.ip), "-p", str(5201 + number), "-t", str(SECONDS), "-O", "1"]
        done = await lab.device(f"d{number}").run(argv, capture_stdout=True)
        rates.append(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"])

    async with trio.open_nursery() as servers:
        for number in range(links):
            argv = ["iperf3", "-s", "-p", str(5201 + number)]
            servers.start_soon(partial(server.run, argv, capture_stdout=True))
        while (await server.run(["ss", "-Hltn"], capture_stdout=True)).stdout.count(b"LISTEN") < links:
            await trio.sleep(0.05)  # how often it is looked
        began, before = time.perf_counter(), relays_cpu()
        async with trio.open_nursery() as clients:
            for number in range(links):
                clients.start_soon(client, number)
        cpu = (relays_cpu() - before) / (time.perf_counter() - began)
        servers.cancel_scope.cancel()
    return {"tcp_gbit": sum(rates) / 1e9, "tcp_relay_cpu": cpu}


async def packets(lab: Lab, links: int) -> dict[str, float]:
    """What arrives of floods, by the counter of the server's interface: nobody reads it there."""
    server = lab.device("server")
    with server.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("0.0.0.0", 9))

        async def arrived() -> int:
            argv = ["cat", "/sys/class/net/eth0/statistics/rx_packets"]
            return int((await server.run(argv, capture_stdout=True)).stdout)

        async with trio.open_nursery() as floods:
            for number in range(links):
                argv = [sys.executable, "-c", FLOOD, str(server.ip)]
                floods.start_soon(lab.device(f"d{number}").run, argv)
            await trio.sleep(1)  # until the flow is even
            began, first, cpu = time.perf_counter(), await arrived(), relays_cpu()
            await trio.sleep(SECONDS)  # what is measured
            last, spent = await arrived(), time.perf_counter() - began
            cpu = (relays_cpu() - cpu) / spent
            floods.cancel_scope.cancel()
    return {"packets_a_second": (last - first) / spent, "flood_relay_cpu": cpu}


def late_us(lab: Lab, links: int) -> list[float]:
    """How late each packet arrives by the kernel's clock at the far end, in µs."""
    with lab.device("server").socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("0.0.0.0", 9))
        sink.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sink.setblocking(False)
        sources = [lab.device(f"d{n}").socket(socket.AF_INET, socket.SOCK_DGRAM) for n in range(links)]
        for source in sources:
            source.connect((str(lab.device("server").ip), 9))
        found: list[float] = []
        began = due = time.time_ns()
        number = 0
        while due < began + SECONDS * 10**9:
            while time.time_ns() < due:
                take(sink, found)
            sources[number % links].send(struct.pack("q", time.time_ns()))
            due += 10**9 // PACKETS_A_SECOND
            number += 1
        until = time.time_ns() + 4 * DELAY_MS * 10**6
        while time.time_ns() < until:
            take(sink, found)
    return found


def take(sink: socket.socket, found: list[float]) -> None:
    try:
        data, control, _, _ = sink.recvmsg(64, 64)
    except BlockingIOError:
        return
    seconds, nanoseconds = struct.unpack("qq", control[0][2])
    found.append((seconds * 10**9 + nanoseconds - struct.unpack("q", data)[0]) / 1e3)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100)
    return {"late_median_us": cuts[49], "late_p99_us": cuts[98], "arrived": len(values)}


async def measure(emulator: str, condition: str, links: int) -> dict[str, Any]:
    async with open_lab(topology(condition, links), emulator=emulator) as lab:
        if condition == "idle":
            await made_idle(lab)
        wanted = DELAY_MS * 1e3 if condition in ("delay", "loss") else 0
        late = quantiles([value - wanted for value in late_us(lab, links)])
        return {**late, **await packets(lab, links), **await tcp(lab, links)}


def main() -> None:
    emulator, condition, links = sys.argv[1:]
    print(json.dumps(trio.run(measure, emulator, condition, int(links))))


if __name__ == "__main__":
    main()
