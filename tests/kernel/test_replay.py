"""The trace of a lab, run by a plain shell, makes the same lab."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

import patchbay
from patchbay.config.topology_file import draft_topology
from patchbay.lab.lab import Lab
from patchbay.model.lab import (
    DeviceSpec,
    IfaceSpec,
    LabSpec,
    RegionLinkSpec,
    RegionSpec,
    RouterPreset,
    RouterSpec,
)
from patchbay.model.link import LINK_PRESETS, LinkCondition, LinkPreset
from patchbay.plan import view
from patchbay.record.history import layout_after
from tests.kernel.inside import into
from tests.kernel.state import DUMP, parse
from tests.patience import DEADLINE, wait_until
from tests.processes import popen, run
from tests.pure.walks import walk

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
            "server": {"stun": True, "eth0": {"gateway": "dc", "link": {"up": {"latency_ms": 3}}}},
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
        assert self._process.stdout
        for line in iter(self._process.stdout.readline, "END\n"):
            assert line, "the shell ended"
            yield line

    def end(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        assert self._process.wait(DEADLINE) == 0
        self._process.stdout.close()  # type: ignore[union-attr]


def sysctls(lab: Lab) -> str:
    return " ".join(sorted({r.argv[-1].partition("=")[0] for r in lab.commands if r.tool == "sysctl"}))


async def compare(lab: Lab, folder: Path, *, everything: bool = False) -> None:
    dump, script = folder / "dump.sh", folder / "lab.sh"
    dump.write_text(ANSWER.format(DUMP.replace("SYSCTLS", sysctls(lab))))
    script.write_text(lab.trace("sh", everything=everything))
    # Relays by hand are `python3 -m patchbay...`.
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    shells = [
        Shell(popen([*into(lab), "sh", str(dump)], **pipes)),
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
        ours, replayed = ({item for key in state for item in _items(key, state[key])} for state in seen)
        assert (sorted(ours - replayed), sorted(replayed - ours)) == ([], [])
        raise


def _items(key: str, state: Any) -> Iterator[str]:
    """What a command has said, one item each, so that what differs can be read."""
    for item in state if isinstance(state, list) else [state]:
        yield f"{key}: {json.dumps(item, sort_keys=True)}"


async def test_the_first_packet_in_a_lab_that_was_replayed_is_answered(tmp_path: Path) -> None:
    spec = {
        "router": [{"name": "r", "preset": "home", "downlink": {"latency_ms": 5}}],
        "device": {"d": {"eth0": {"gateway": "r"}}},
    }
    async with patchbay.open_lab(spec) as lab:
        target = str(lab.ix.ip)
        for everything in (False, True):
            script = tmp_path / f"{everything}.sh"
            script.write_text(lab.trace(everything=everything))
            ping = ["nsenter", "--net=/run/netns/d", "ping", "-n", "-c1", f"-W{DEADLINE:g}", target]
            env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
            done = await trio.to_thread.run_sync(partial(run, ["sh", script, *ping], env=env, text=True))
            assert " 1 received" in done.stdout, done.stderr


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
        await compare(lab, tmp_path, everything=True)


async def test_a_lab_that_never_changed_has_the_trace_that_was_applied(tmp_path: Path) -> None:
    for name, spec in LABS.items():
        async with patchbay.open_lab(spec, outdir=tmp_path) as lab:
            applied = [(r.ns, r.argv, r.input, r.why) for r in lab.commands]
            planned = [(c.ns, c.argv, c.stdin, c.why) for c in lab.plan]
            assert sorted(map(repr, applied)) == sorted(map(repr, planned)), name
            # In each namespace in the same order, but for relays, which are started side by side.
            for ns in {ns for ns, *_ in applied}:
                ours, told = (
                    [it for it in items if it[0] == ns and it[1][0] != "python3"]
                    for items in (applied, planned)
                )
                assert ours == told, f"{name}, in {ns}"
            assert lab.run_dir
            with (lab.run_dir / "changes.jsonl").open(encoding="utf-8") as lines:
                assert layout_after(lines) == lab._core.changes.applied


SMALL = LabSpec(
    regions=(RegionSpec("eu"), RegionSpec("us")),
    routers=(
        RouterSpec("dc", RouterPreset.DATACENTER, region="eu"),
        RouterSpec("isp", RouterPreset.ISP_CGNAT, region="us"),
        RouterSpec("home", RouterPreset.HOME, upstream="isp", downlink=LINK_PRESETS[LinkPreset.WIFI]),
        RouterSpec("office", RouterPreset.CORPORATE, upstream="isp"),
    ),
    devices=tuple(
        DeviceSpec(
            f"device{number}",
            {"eth0": IfaceSpec(router, LINK_PRESETS[LinkPreset.MOBILE] if number % 2 else None)},
        )
        for number, router in enumerate(("dc", "home", "home", "office", "isp"))
    ),
    region_links=(RegionLinkSpec("eu", "us", LinkCondition(latency_ms=40)),),
)


async def test_after_two_hundred_changes_the_kernel_has_what_a_new_lab_would_have(tmp_path: Path) -> None:
    """Changes of every kind, one by one and in batches."""
    rng = Random(4)
    async with patchbay.open_lab(SMALL) as lab:
        assert len([*lab._core.visible.nodes()]) == 12
        done = 0
        while done < 200:
            async with contextlib.AsyncExitStack() as stack:
                if rng.random() < 0.2:
                    await stack.enter_async_context(lab.batch())
                for change, _, _ in walk(lab._core.visible, rng.randrange(2**32), steps=rng.choice([1, 5])):
                    await lab.apply(change)
                    done += 1
            if done % 50 == 0:
                await compare(lab, tmp_path)
        await compare(lab, tmp_path)
        await compare(lab, tmp_path, everything=True)
