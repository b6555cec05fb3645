"""However a lab ends, nothing of it is left."""

from __future__ import annotations

import gc
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import patchbay
from tests.kernel import endings
from tests.kernel.labs import HOME, home_lab

pytestmark = pytest.mark.kernel

WITHIN = 1 + 3 * 0.003


def processes_of(agent: int) -> set[int]:
    """The process and all that come from it."""
    found = {agent}
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def namespaces_in_use() -> set[tuple[int, int]]:
    """Every network namespace that some process is in."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            stat = link.stat()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        found.add((stat.st_dev, stat.st_ino))
    return found


def is_running(pid: int) -> bool:
    """A zombie is not: it has freed everything, and waits for the machine's init to take note."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def leftovers(pids: set[int], namespaces: set[tuple[int, int]]) -> Iterator[str]:
    yield from (f"process {pid}" for pid in pids if is_running(pid))
    yield from (f"namespace {ns}" for ns in namespaces & namespaces_in_use())
    yield from (
        f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if "patchbay" in line
    )


def assert_all_gone(pids: set[int], namespaces: set[tuple[int, int]], within: float = WITHIN) -> None:
    deadline = time.monotonic() + within
    while left := list(leftovers(pids, namespaces)):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


class Program:
    """`endings.py`, on a terminal of its own, with a lab open."""

    def __init__(self, way: str, tmp_path: Path) -> None:
        self.master, slave = pty.openpty()
        self.terminal_before = termios.tcgetattr(self.master)
        self.tmp = tmp_path
        self.process = subprocess.Popen(
            [sys.executable, endings.__file__, way],
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        os.close(slave)
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        state = json.loads(line)
        self.namespaces = {tuple(ns) for ns in state["namespaces"]}
        self.pids = processes_of(state["agent"])
        assert len(self.pids) > 5
        assert self.namespaces <= namespaces_in_use()

    def wait(self) -> tuple[int, str]:
        _, stderr = self.process.communicate(timeout=20)
        return self.process.returncode, stderr


def go_on(program: Program) -> None:
    os.write(program.master, b"\n")


WAYS: dict[str, tuple[Callable[[Program], None], Any, str]] = {
    "normal": (go_on, 0, ""),
    "exception": (go_on, 1, "LookupError: the block's own"),
    "cancel": (go_on, 0, ""),
    "Ctrl-C": (lambda p: os.killpg(p.process.pid, signal.SIGINT), -signal.SIGINT, "KeyboardInterrupt"),
    "SIGTERM": (lambda p: p.process.terminate(), -signal.SIGTERM, ""),
    "SIGKILL": (lambda p: p.process.kill(), -signal.SIGKILL, ""),
    "agent killed": (go_on, 1, "LabDiedError"),
}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_of_a_lab_that_ended_by(way: str, tmp_path: Path) -> None:
    act, status, says = WAYS[way]
    program = Program(way, tmp_path)
    act(program)
    code, stderr = program.wait()
    assert_all_gone(program.pids, program.namespaces)
    assert (code, says in stderr) == (status, True), stderr
    assert termios.tcgetattr(program.master) == program.terminal_before
    assert list(tmp_path.iterdir()) == []
    os.close(program.master)


async def test_an_exception_of_the_block_leaves_it_as_itself() -> None:
    class Own(Exception):
        pass

    with pytest.raises(Own):
        async with patchbay.open_lab():
            raise Own


async def test_a_cancelled_block_takes_its_cancellation_out_with_it() -> None:
    with trio.move_on_after(0.2) as scope:
        async with patchbay.open_lab():
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_killed_agent_fails_what_is_under_way_and_every_later_call() -> None:
    with pytest.raises(patchbay.LabDiedError):
        async with home_lab() as lab:
            os.kill(lab._session.sandbox.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True):
                with pytest.raises(patchbay.LabDiedError):
                    await lab.device("laptop").run(["sleep", "100"])
                with pytest.raises(patchbay.LabDiedError):
                    await lab.add_router("more")


async def test_a_killed_agent_ends_a_block_with_tasks_of_its_own_by_one_plain_error() -> None:
    with pytest.raises(patchbay.LabDiedError):
        async with home_lab() as lab, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(trio.sleep_forever)
            os.kill(lab._session.sandbox.pid, signal.SIGKILL)


async def test_a_closed_lab_says_so() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
    with pytest.raises(patchbay.LabClosedError):
        await laptop.run(["true"])
    with pytest.raises(patchbay.LabClosedError):
        laptop.socket()
    with pytest.raises(patchbay.LabClosedError):
        await lab.add_router("more")
    assert lab.commands


async def test_a_process_that_ignores_sigterm_does_not_hold_the_lab_longer_than_its_bound() -> None:
    async with patchbay.open_lab(HOME) as lab:
        stubborn = "trap '' TERM; echo; while :; do sleep 1; done"
        async with lab.device("laptop").open_process(
            ["sh", "-c", stubborn], stdout=subprocess.PIPE
        ) as process:
            await process.stdout.receive_some()
            started = trio.current_time()
    assert trio.current_time() - started < 2 + 1
    assert process.returncode == -signal.SIGKILL


def test_two_hundred_labs_in_a_row_leave_no_descriptor_and_no_thread() -> None:
    async def one() -> None:
        async with patchbay.open_lab(HOME) as lab:
            with lab.device("laptop").enter():
                trio.socket.socket()
            await lab.device("server").run(["true"])
            lab.device("server").socket()

    def counts() -> tuple[int, int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    trio.run(one)
    before = counts()
    for _ in range(200):
        trio.run(one)
    assert counts() == before
