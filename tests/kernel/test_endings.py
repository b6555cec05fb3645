"""However a lab ends, nothing of it is left."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import trio

import patchbay
from patchbay.lab.lab import Lab
from patchbay.sandbox.sandbox import Channel
from tests.kernel import endings
from tests.kernel.labs import HOME, home_lab
from tests.leftovers import be_a_subreaper, descendants
from tests.patience import DEADLINE, await_until, wait_until
from tests.processes import popen

pytestmark = pytest.mark.kernel


class Held:
    """Processes and network namespaces, by descriptors: their numbers go to others when they have ended."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.descriptors: list[int] = []
        self.processes: dict[int, int] = {}
        self.namespaces: dict[tuple[int, int], int] = {}
        for pid in pids:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                self.processes[pid] = self._keep(os.pidfd_open(pid))
                namespace = self._keep(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY))
                stat = os.fstat(namespace)
                self.namespaces[stat.st_dev, stat.st_ino] = namespace

    def _keep(self, descriptor: int) -> int:
        self.descriptors.append(descriptor)
        return descriptor

    def left(self) -> list[str]:
        """Describe processes that run, and namespaces that some process is in."""
        for pid in self.processes:
            # Those that this process has adopted, because it is a "child subreaper" (prctl(2)).
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        poll = select.poll()
        for descriptor in self.processes.values():
            poll.register(descriptor, select.POLLIN)
        # pidfd_open(2): readable once its process has ended, also before its parent takes note.
        ended = {descriptor for descriptor, _ in poll.poll(0)}
        return [
            *(f"process {pid}" for pid, descriptor in self.processes.items() if descriptor not in ended),
            *(f"namespace {ns}" for ns in self.namespaces.keys() & namespaces_in_use()),
        ]

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


def namespaces_in_use() -> set[tuple[int, int]]:
    """Every network namespace that some process is in."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            stat = link.stat()
            found.add((stat.st_dev, stat.st_ino))
    return found


def mounts() -> set[str]:
    return set(Path("/proc/self/mounts").read_text().splitlines())


class Program:
    """`endings.py`, on a terminal of its own, with a lab open."""

    def __init__(self, way: str, tmp_path: Path) -> None:
        be_a_subreaper()
        self.mounts_before = mounts()
        self.master, slave = pty.openpty()
        self.terminal_before = termios.tcgetattr(self.master)
        self.process = popen(
            [sys.executable, endings.__file__, way],
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        os.close(slave)
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        state = json.loads(line)
        self.held = Held(descendants(self.process.pid))
        stat = os.stat("/proc/self/ns/net")
        self.held.namespaces.pop((stat.st_dev, stat.st_ino))
        assert state["agent"] in self.held.processes
        assert len(self.held.processes) > 5
        assert {tuple(ns) for ns in state["namespaces"]} <= self.held.namespaces.keys()

    def wait(self) -> tuple[int, str]:
        _, stderr = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, stderr

    def assert_all_gone(self) -> None:
        wait_until(lambda: not self.held.left() and mounts() == self.mounts_before, "nothing left")

    def close(self) -> None:
        self.held.close()
        os.close(self.master)


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


@pytest.mark.ordinary
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_of_a_lab_that_ended_by(way: str, tmp_path: Path) -> None:
    act, status, says = WAYS[way]
    program = Program(way, tmp_path)
    act(program)
    code, stderr = program.wait()
    program.assert_all_gone()
    assert (code, says in stderr) == (status, True), stderr
    assert termios.tcgetattr(program.master) == program.terminal_before
    assert list(tmp_path.iterdir()) == []
    program.close()


async def test_an_exception_of_the_block_leaves_it_as_itself() -> None:
    class Own(Exception):
        pass

    with pytest.raises(Own):
        async with patchbay.open_lab():
            raise Own


async def test_a_cancelled_block_takes_its_cancellation_out_with_it() -> None:
    with trio.CancelScope() as scope:
        async with patchbay.open_lab():
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_killed_agent_fails_what_is_under_way_and_every_later_call() -> None:
    with pytest.raises(patchbay.LabDiedError):
        async with home_lab() as lab:
            os.kill(lab._core.session.sandbox.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True):
                with pytest.raises(patchbay.LabDiedError):
                    await lab.device("laptop").run(["sleep", "100"])
                with pytest.raises(patchbay.LabDiedError):
                    await lab.add_router("more")


async def run_true(lab: Lab) -> None:
    await lab.device("laptop").run(["true"])


async def popen_true(lab: Lab) -> None:
    lab.device("laptop").popen(["true"])


async def call_getpid(lab: Lab) -> None:
    await lab.device("laptop").call(os.getpid)


async def look_up(lab: Lab) -> None:
    await lab.device("laptop").getaddrinfo("server", 80)


async def add_router(lab: Lab) -> None:
    await lab.add_router("more")


@pytest.mark.parametrize("act", [run_true, popen_true, call_getpid, look_up, add_router])
async def test_an_agent_that_dies_before_it_is_asked_is_the_labs_end(
    act: Callable[[Lab], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.suppress(patchbay.LabDiedError):
        async with home_lab() as lab:
            lab.device("laptop").socket().close()
            converse = Channel.converse

            def and_die(channel: Channel) -> socket.socket:
                conversation = converse(channel)
                os.kill(lab._core.session.sandbox.pid, signal.SIGKILL)
                assert select.select([conversation], [], [], DEADLINE)[0]
                return conversation

            monkeypatch.setattr(Channel, "converse", and_die)
            with trio.CancelScope(shield=True), pytest.raises(patchbay.LabDiedError):
                await act(lab)


async def test_a_command_that_runs_when_the_agent_is_killed_fails_by_one_plain_error(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with pytest.raises(patchbay.LabDiedError):
        async with home_lab() as lab, trio.open_nursery() as nursery:

            async def run() -> None:
                with trio.CancelScope(shield=True), pytest.raises(patchbay.LabDiedError):
                    await lab.device("laptop").run(["sh", "-c", f"touch {started}; exec sleep 1000"])

            async def has_started() -> bool:
                return started.exists()

            nursery.start_soon(run)
            await await_until(has_started)
            os.kill(lab._core.session.sandbox.pid, signal.SIGKILL)


async def test_a_killed_agent_ends_a_block_with_tasks_of_its_own_by_one_plain_error() -> None:
    with pytest.raises(patchbay.LabDiedError):
        async with home_lab() as lab, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(trio.sleep_forever)
            os.kill(lab._core.session.sandbox.pid, signal.SIGKILL)


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


@pytest.mark.ordinary
async def test_a_process_that_ignores_sigterm_does_not_hold_the_lab_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("patchbay.sandbox.process.GRACE", 0.2)
    stubborn = "trap '' TERM; echo; while :; do sleep 1; done"
    async with patchbay.open_lab(HOME) as lab:
        laptop = lab.device("laptop")
        async with laptop.open_process(["sh", "-c", stubborn], stdout=subprocess.PIPE) as process:
            assert process.stdout
            await process.stdout.receive_some()
            left = trio.current_time()
    # Not before its time to end by itself is over.
    assert trio.current_time() - left >= 0.2
    assert process.returncode == -signal.SIGKILL


def test_many_labs_in_a_row_leave_no_descriptor_and_no_thread() -> None:
    number = 20

    async def one() -> None:
        async with patchbay.open_lab(HOME) as lab:
            with lab.device("laptop").enter():
                left_open: list[Any] = [trio.socket.socket()]
            await lab.device("server").run(["true"])
            left_open.append(lab.device("server").socket())

    def descriptors() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    trio.run(one)
    open_before, threads_before = descriptors(), threading.active_count()
    for _ in range(number):
        trio.run(one)
    assert descriptors() <= open_before
    # trio keeps threads for a while, as many as were busy at once.
    assert threading.active_count() < threads_before + number
