"""Labs held open, and shells in them."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

pytestmark = pytest.mark.kernel

PATCHBAY = [sys.executable, "-m", "patchbay_cli.main"]


class Terminal:
    """A command on a terminal of its own, spoken to as by a person."""

    def __init__(self, argv: list[str]) -> None:
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(self.master)
        self.process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "SHELL": "/bin/sh", "PS1": "$ "},
        )
        self.slave = slave
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, pattern: str, within: float = 15) -> str:
        deadline = time.monotonic() + within
        while not (match := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r} in {self.seen!r}"
            self.seen += os.read(self.master, 4096).decode(errors="replace")
        self.seen = self.seen[match.end() :]
        return match[0]

    def settings(self) -> list[object]:
        return termios.tcgetattr(self.slave)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def held(lab_file: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `patchbay inspect`, and waits until it holds."""
    started: list[subprocess.Popen[str]] = []

    def hold(*words: str) -> subprocess.Popen[str]:
        argv = [*PATCHBAY, "inspect", str(lab_file), *words]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout
        while "held open" not in (line := process.stdout.readline()):
            assert line, "inspect ended"
        return process

    yield hold
    for process in started:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)


def test_run_in_runs_a_command_in_a_node_of_a_held_lab(cli: Cli, held: Callable[..., object]) -> None:
    held("--id", "test-a")
    done = cli("run-in", "laptop", "--inspect", "test-a", "--", "ip", "-br", "address", "show", "eth0")
    assert "10.0.0.2/16" in done.stdout
    done = cli("run-in", "home router", "--inspect", "test-a", "--", "sh", "-c", "cat; exit 4", input="in")
    assert (done.stdout, done.returncode) == ("in", 4)
    done = cli(
        "run-in", "laptop", "--inspect", "test-a", "--", "sh", "-c", "echo $PATCHBAY_IP_SERVER; kill -9 $$"
    )
    assert (done.stdout, done.returncode) == ("198.18.0.2\n", -signal.SIGKILL)
    done = cli("run-in", "labtop", "--inspect", "test-a", "--", "true")
    assert done.returncode == 1
    assert "did you mean 'laptop'" in done.stderr
    done = cli("run-in", "laptop", "--inspect", "test-b", "--", "true")
    assert "did you mean 'test-a'" in done.stderr


def test_an_id_that_is_taken_is_refused(cli: Cli, lab_file: Path, held: Callable[..., object]) -> None:
    held("--id", "taken")
    done = cli("inspect", lab_file, "--id", "taken")
    assert done.returncode == 1
    assert "choose another --id" in done.stderr


def test_ctrl_c_ends_inspect_with_success_and_the_lab_with_it(cli: Cli, held: Callable[..., object]) -> None:
    process = held("--id", "ending")
    process.send_signal(signal.SIGINT)  # type: ignore[attr-defined]
    assert process.wait(10) == 0  # type: ignore[attr-defined]
    assert (
        "no lab is held open as 'ending'"
        in cli("run-in", "laptop", "--inspect", "ending", "--", "true").stderr
    )


def test_a_shell_has_a_terminal_of_its_own_and_leaves_the_users_as_it_was(
    held: Callable[..., object],
) -> None:
    held("--id", "shell")
    terminal = Terminal([*PATCHBAY, "shell", "laptop", "--inspect", "shell"])
    before = terminal.settings()
    terminal.type("echo on $((40 + 2)); tty\n")
    terminal.until(r"on 42")
    terminal.until(r"/dev/pts/\d+")
    assert terminal.settings() != before
    # Ctrl-C goes to what runs in the shell, not to `patchbay shell`.
    terminal.type("sh -c 'echo sta\"\"rting; exec sleep 1000'\n")
    terminal.until(r"starting")
    terminal.type("\x03")
    terminal.until(r"\$ $")
    terminal.type("echo after $((6 * 7)); ip -br address show eth0\n")
    terminal.until(r"after 42")
    terminal.until(r"10\.0\.0\.2/16")
    terminal.type("exit 6\n")
    assert terminal.process.wait(10) == 6
    assert terminal.settings() == before
    terminal.close()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP], ids=lambda s: s.name)
def test_the_terminal_is_put_back_when_the_shell_is_ended_by(
    signum: int, held: Callable[..., object]
) -> None:
    held("--id", "put-back")
    terminal = Terminal([*PATCHBAY, "shell", "laptop", "--inspect", "put-back"])
    before = terminal.settings()
    terminal.type("echo on $((40 + 2))\n")
    terminal.until(r"on 42")
    assert terminal.settings() != before
    terminal.process.send_signal(signum)
    terminal.process.wait(10)
    deadline = time.monotonic() + 2
    while terminal.settings() != before:
        assert time.monotonic() < deadline
    terminal.close()
