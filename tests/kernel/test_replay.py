"""The trace of a lab, run by a plain shell, makes the same lab."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import patchbay
from patchbay.config.topology_file import draft_topology
from patchbay.lab.lab import Lab
from patchbay.plan import view
from tests.kernel.state import DUMP, parse
from tests.patience import DEADLINE, wait_until
from tests.processes import popen

pytestmark = pytest.mark.kernel

# Tells the state for each line that it reads.
ANSWER = "while read -r _; do\n{}\necho END\ndone\n"

RENAMED = "odd 'name' \"here\" ünï"

LABS: dict[str, dict[str, Any]] = {
    "home and datacenter": {
        "router": [{"name": "dc", "preset": "datacenter"}, {"name": "home", "preset": "home", "mtu": 1400}],
        "device": {"server": {"eth0": {"gateway": "dc"}}, "laptop": {"eth0": {"gateway": "home"}}},
    },
    "two NATs in a row, a region, two uplinks": {
        "region": {"eu": {}},
        "router": [
            {"name": "isp", "preset": "datacenter", "region": "eu"},
            {"name": "outer", "preset": "home", "upstream": "isp"},
            {"name": "inner", "preset": "home", "upstream": "outer"},
            {"name": "v6", "ip_support": "v6-only"},
            {"name": "nobody below", "preset": "home"},
        ],
        "device": {
            "phone": {"mtu": 1300, "wlan0": {"gateway": "inner"}, "rmnet0": {"gateway": "isp"}},
            "six": {"count": 2, "eth0": {"gateway": "v6"}},
        },
    },
    "names with spaces, quotes and non-ASCII": {
        "router": [{"name": RENAMED, "preset": "home"}],
        "device": {"été $HOME `x`": {"eth0": {"gateway": RENAMED}}},
    },
    "links with conditions, below a shared downlink and between regions": {
        "region": {"us": {"latencies": {"eu": 40}}, "eu": {}},
        "router": [
            {"name": "isp", "preset": "datacenter", "region": "us", "downlink": {"rate_kbit": 50_000}},
            {"name": "home", "preset": "home", "upstream": "isp", "downlink": "wifi-bad"},
            {"name": "dc", "preset": "datacenter", "region": "eu"},
        ],
        "device": {
            "phone": {"wlan0": {"gateway": "home", "link": "wifi"}, "rmnet0": {"gateway": "isp"}},
            "server": {"eth0": {"gateway": "dc", "link": {"up": {"latency_ms": 3}}}},
        },
    },
    "permanent neighbours in a large lab": {
        "router": [{"name": f"r{n}", "preset": "home"} for n in range(2)],
        "device": {f"d{n}": {"count": 4, "eth0": {"gateway": f"r{n}"}} for n in range(2)},
    },
}


class Shell:
    """A shell in a lab that prints the lab's state whenever it is asked to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def state(self) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return parse(self._lines())

    def _lines(self) -> Iterator[str]:
        for line in iter(self._process.stdout.readline, "END\n"):
            assert line, "the shell ended"
            yield line

    def end(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        assert self._process.wait(DEADLINE) == 0


def sysctls(lab: Lab) -> str:
    return " ".join(sorted({r.argv[-1].partition("=")[0] for r in lab.commands if r.tool == "sysctl"}))


async def compare(lab: Lab, folder: Path) -> None:
    dump, script = folder / "dump.sh", folder / "lab.sh"
    dump.write_text(ANSWER.format(DUMP.replace("SYSCTLS", sysctls(lab))))
    script.write_text(lab.trace("sh"))
    # Relays by hand are `python3 -m patchbay...`.
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    shells = [
        Shell(lab.ix.popen(["sh", str(dump)], **pipes)),
        Shell(popen(["sh", str(script), "sh", str(dump)], env=env, **pipes)),
    ]
    await trio.to_thread.run_sync(until_equal, shells)
    for shell in shells:
        shell.end()


def until_equal(shells: list[Shell]) -> None:
    """Addresses and carriers take a moment to be what they will be."""
    seen: list[dict[str, Any]] = []

    def are_equal() -> bool:
        seen[:] = [shell.state() for shell in shells]
        return seen[0] == seen[1]

    try:
        wait_until(are_equal)
    except AssertionError:
        ours, replayed = seen
        for key in sorted({*ours, *replayed}):
            assert ours.get(key) == replayed.get(key), key
        raise


SHIPPED = sorted((Path(__file__).parents[2] / "sims").glob("*.toml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
async def test_replaying_the_lab_of_a_sim_that_ships_gives_the_same_state(file: Path, tmp_path: Path) -> None:
    async with patchbay.open_lab(draft_topology(file).spec) as lab:
        await compare(lab, tmp_path)


def test_sims_ship() -> None:
    assert len(SHIPPED) >= 4


@pytest.mark.ordinary
@pytest.mark.parametrize("name", LABS)
async def test_replaying_the_trace_gives_the_same_state(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "large" in name:
        monkeypatch.setattr(view, "NODES_WITH_ARP", 5)
    async with patchbay.open_lab(LABS[name]) as lab:
        if "large" in name:
            assert " neigh " in lab.trace()
        await compare(lab, tmp_path)


async def test_replaying_a_lab_that_was_built_step_by_step_with_a_failure_gives_its_final_state(
    tmp_path: Path, break_command: Callable[..., Any]
) -> None:
    async with patchbay.open_lab() as lab:
        dc = await lab.add_router("dc", preset="datacenter")
        with break_command(lambda command: "default" in command.argv), pytest.raises(patchbay.CommandFailed):
            await lab.add_device("server", uplink=dc)
        async with lab.batch():
            home = await lab.add_router("home", preset="home")
            await lab.add_device("laptop", ifaces={"eth0": home, "wlan0": dc})
        await lab.add_device("server", uplink=dc)
        await compare(lab, tmp_path)
