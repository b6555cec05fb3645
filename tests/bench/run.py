"""`make bench`: how fast labs open and close, what people wait for most, and what links cost.

Labs are opened beside the floor and mininet in the same run.

Prints tables, and keeps everything measured in bench-results/.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.bench.links import measure_links, print_links

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "bench-results"
SIZES = ((2, 2), (10, 100), (30, 300), (100, 1000))
# mininet grows so fast that the largest would take a minute a run.
# Seconds a namespace, with something to spare.
TEARDOWN = 0.004
MININET_MOST = 330

Measured = dict[str, Any]


def build_floor() -> list[str]:
    RESULTS.mkdir(exist_ok=True)
    program = RESULTS / "floor"
    subprocess.run(["cc", "-O2", HERE / "floor.c", "-o", program, "-lnftables"], check=True)
    return [str(program)]


def busy_ticks() -> int:
    user, nice, system, _idle, _wait, irq, soft, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return user + nice + system + irq + soft


def wait_for_quiet(nodes: int, bound: float = 60) -> None:
    """Until the kernel has torn down the last lab, of so many nodes, which would slow the next one.

    That takes 2.4 ms a namespace, much of it waiting for RCU, when the machine looks idle.
    """
    time.sleep(0.5 + nodes * TEARDOWN)  # the kernel's teardown, which nothing tells the end of
    quiet, deadline, before = 0, time.monotonic() + bound, busy_ticks()
    while quiet < 4 and time.monotonic() < deadline:
        time.sleep(0.25)  # how often it is looked
        now = busy_ticks()
        quiet, before = (quiet + 1 if now - before <= 2 else 0), now


def run(argv: list[str]) -> Measured:
    """Return one process's JSON line; nothing where it says that it cannot (exit 3)."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        return {}
    if done.returncode != 0:
        raise RuntimeError(f"{argv} failed:\n{done.stderr}")
    measured: Measured = json.loads(done.stdout)
    return measured


def measure(argv: list[str], before: int) -> Measured:
    """Run a measurement once the machine is quiet. `before` is the number of nodes of the last lab."""
    wait_for_quiet(before)
    return run(argv)


def labs(rounds: int, sizes: list[tuple[int, int]]) -> list[Measured]:
    floor, ours = build_floor(), [sys.executable, str(HERE / "one_lab.py")]
    mininet = ["/usr/bin/python3", str(HERE / "mininet_lab.py")]
    found = []
    with Progress(transient=True) as progress:
        task = progress.add_task("labs", total=rounds * len(sizes))
        for routers, devices in sizes:
            rows: dict[str, list[Measured]] = {"floor": [], "patchbay": [], "mininet": []}
            for _ in range(rounds):
                size = [str(routers), str(devices)]
                runs = {"floor": [*floor, *size], "patchbay": [*ours, *size]}
                if routers + devices <= MININET_MOST:
                    runs["mininet"] = [*mininet, str(routers + devices)]
                for name, argv in runs.items():
                    if measured := measure(argv, routers + devices):
                        rows[name].append(measured)
                progress.advance(task)
            found.append({"routers": routers, "devices": devices, **rows})
    return found


def median(rows: list[Measured], key: str) -> float | None:
    return statistics.median(row[key] for row in rows) if rows else None


def ratio(over: list[Measured], under: list[Measured], keys: tuple[str, str]) -> float | None:
    """The median of the ratios of runs that stood side by side."""
    pairs = [a[keys[0]] / b[keys[1]] for a, b in zip(over, under, strict=False)]
    return statistics.median(pairs) if pairs else None


def shown(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def print_labs(console: Console, found: list[Measured]) -> None:
    table = Table("lab", "floor", "open", "× floor", "a node", "close", "mininet", "÷ open")
    for row in found:
        nodes = row["routers"] + row["devices"]
        opened = median(row["patchbay"], "open_ms")
        assert opened is not None
        table.add_row(
            f"{row['routers']} + {row['devices']}",
            shown(median(row["floor"], "build_ms"), 1),
            shown(opened, 1),
            shown(ratio(row["patchbay"], row["floor"], ("open_ms", "build_ms")), 2),
            shown(opened / nodes, 2),
            shown(median(row["patchbay"], "close_ms"), 1),
            shown(median(row["mininet"], "build_ms")),
            shown(ratio(row["mininet"], row["patchbay"], ("build_ms", "open_ms")), 1),
        )
    console.print("labs: medians, in ms", table, sep="\n")


def waits(rounds: int) -> Measured:
    """Return the median of each wait over `rounds` processes, in ms and MiB."""
    found: dict[str, list[float]] = {}
    with Progress(transient=True) as progress:
        for what in progress.track(["ping", "open", "add", "use", "loop"] * rounds, description="waits"):
            wait_for_quiet(1100)
            started = time.perf_counter()
            measured = run([sys.executable, "-m", "tests.bench.waits", what])
            if what == "ping":
                measured["ping"] = (time.perf_counter() - started) * 1e3
            for name, value in measured.items():
                found.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


# Of another machine, two to three times slower than the one in docs/performance.md: the Rust patchbay 0.7 and
# ours before its fourth part were timed there side by side. What compares is the ratio.
WAITS = {
    "ping": ("process start to first ping through a home NAT", "176", "448–568"),
    "open_first": ("open 2 + 2, first lab of a process", "169", "250–420"),
    "open_later": ("open 2 + 2, later labs", "169", "111"),
    "from_file": ("10 + 100 from a file", "5498", "511"),
    "in_batch": ("10 + 100 in a batch", "5498", "1288"),
    "one_by_one": ("10 + 100 one by one", "5498", "2707"),
    "longest_wait": ("longest wait of another task, 100 + 1000 in a batch", "", ""),
    "popen": ('popen(["true"]) to its end', "1.2", "36–46"),
    "run": ('run(["true"])', "1.2", "1.7–2.9"),
    "socket": ("socket()", "0.012", "0.14"),
    "enter": ("a bound UDP socket inside enter()", "0.03", "0.27"),
    "call_first": ("call(os.getpid), first", "0.007", "53–95"),
    "call": ("call(os.getpid), later", "0.007", "0.65"),
    "memory": ("MiB, 10 + 100, each device used once", "17", "152"),
    "memory_calls": ("MiB, with call() on 20 of them", "17", "315"),
}


def print_waits(console: Console, measured: Measured) -> None:
    table = Table("what", "now", "there: before", "there: Rust")
    for name, (what, rust, before) in WAITS.items():
        digits = 3 if measured[name] < 1 else 1 if measured[name] < 20 else 0
        table.add_row(what, shown(measured[name], digits), before, rust)
    console.print("waits: medians, in ms", table, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, in turn (default: 5)")
    parser.add_argument("--size", action="append", metavar="ROUTERS+DEVICES", help="only these sizes")
    options = parser.parse_args()
    chosen = options.size or [f"{r}+{d}" for r, d in SIZES]
    sizes = [(int(r), int(d)) for r, _, d in (size.partition("+") for size in chosen)]
    console = Console()
    found = labs(options.rounds, sizes)
    print_labs(console, found)
    waited = waits(options.rounds)
    print_waits(console, waited)
    wait_for_quiet(110)
    links = measure_links(min(options.rounds, 3))
    print_links(console, links)
    record = {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "labs": found,
        "waits": waited,
        "links": links,
    }
    path = RESULTS / f"{datetime.now():%y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(record, indent=1))
    console.print(f"kept in {path}")


if __name__ == "__main__":
    main()
