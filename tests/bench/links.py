"""What links cost by either emulator: throughput, packets a second, added latency, processor time."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from patchbay_vm.kernel import host_has_netem

__all__ = ["measure_links", "print_links"]

ONE_LINK = Path(__file__).with_name("one_link.py")
RUNS = (
    *(("userspace", condition, 1) for condition in ("none", "idle", "delay", "loss")),
    *(("userspace", condition, 20) for condition in ("idle", "delay", "loss")),
    *(("netem", condition, 1) for condition in ("none", "delay", "loss")),
    *(("netem", condition, 20) for condition in ("delay", "loss")),
)
TITLES = {
    "none": "no emulator",
    "idle": "nothing to do",
    "delay": "25 ms",
    "loss": "25 ms, 1 % loss",
}

Row = dict[str, Any]


def one(emulator: str, condition: str, links: int) -> Row:
    """One run; netem's in the guest where this kernel has none."""
    argv = [sys.executable, str(ONE_LINK), emulator, condition, str(links)]
    if emulator == "netem" and not host_has_netem():
        argv = [sys.executable, "-m", "patchbay_vm.uml", "--timeout", "300", "--", *argv]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{argv} failed:\n{done.stderr}")
    row: Row = json.loads(done.stdout)
    return row


def measure_links(rounds: int) -> list[Row]:
    found: dict[tuple[str, str, int], list[Row]] = {run: [] for run in RUNS}
    with Progress(transient=True) as progress:
        task = progress.add_task("links", total=rounds * len(RUNS))
        for _ in range(rounds):
            for run, rows in found.items():
                rows.append(one(*run))
                progress.advance(task)
    return [
        {"emulator": emulator, "condition": condition, "links": links, "runs": rows}
        for (emulator, condition, links), rows in found.items()
    ]


def print_links(console: Console, found: list[Row]) -> None:
    where = "this kernel" if host_has_netem() else "the guest's kernel, which is slower than this one"
    columns = ("links", "TCP Gbit/s", "CPU", "packets/s", "CPU", "late: median", "p99")
    table = Table("emulator", "condition", *columns)
    for row in found:

        def median(key: str, row: Row = row) -> float:
            return float(statistics.median(run[key] for run in row["runs"]))

        table.add_row(
            row["emulator"],
            TITLES[row["condition"]],
            str(row["links"]),
            f"{median('tcp_gbit'):.2f}",
            f"{median('tcp_relay_cpu'):.2f}",
            f"{median('packets_a_second'):,.0f}",
            f"{median('flood_relay_cpu'):.2f}",
            f"{median('late_median_us'):.0f} µs",
            f"{median('late_p99_us'):.0f} µs",
        )
    console.print(f"links: medians; CPU is of the relays, in processors; netem in {where}", table, sep="\n")
