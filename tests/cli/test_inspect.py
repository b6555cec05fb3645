"""Labs held open, and shells in them."""

from __future__ import annotations

import marshal
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from tests.cli.conftest import Cli
from tests.patience import DEADLINE, wait_until
from tests.processes import popen

pytestmark = pytest.mark.kernel

PATCHBAY = [sys.executable, "-m", "patchbay_cli.main"]


class Terminal:
    """A command on a terminal of its own, spoken to as by a person."""

    def __init__(self, argv: list[str]) -> None:
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(self.master)
        ends: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
        self.process = popen(argv, env={**os.environ, "SHELL": "/bin/sh", "PS1": "$ "}, **ends)
        self.slave = slave
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, pattern: str) -> str:
        while not (match := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.master], [], [], DEADLINE)
            assert ready, f"no {pattern!r} in {self.seen!r}"
            self.seen += os.read(self.master, 4096).decode(errors="replace")
        self.seen = self.seen[match.end() :]
        return match[0]

    def settings(self) -> list[object]:
        return termios.tcgetattr(self.slave)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@define
class Held:
    """`patchbay inspect` while it holds a lab."""

    lab_id: str
    process: subprocess.Popen[str]


@pytest.fixture
def held(lab_file: Path) -> Iterator[Held]:
    # Whoever runs the same tests beside these has ids of their own.
    lab_id = f"test-{os.getpid()}"
    argv = [*PATCHBAY, "inspect", str(lab_file), "--id", lab_id]
    process = popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    while "held open" not in (line := process.stdout.readline()):
        assert line, "inspect ended"
    yield Held(lab_id, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)


@pytest.mark.ordinary
def test_run_in_runs_a_command_in_a_node_of_a_held_lab(cli: Cli, held: Held) -> None:
    def run_in(node: str, *command: str, lab_id: str = held.lab_id, **options: Any) -> Any:
        return cli("run-in", node, "--inspect", lab_id, "--", *command, **options)

    done = run_in("laptop", "ip", "-br", "address", "show", "eth0")
    assert "10.0.0.2/16" in done.stdout
    done = run_in("home router", "sh", "-c", "cat; exit 4", input="in")
    assert (done.stdout, done.returncode) == ("in", 4)
    done = run_in("laptop", "sh", "-c", "echo $PATCHBAY_IP_SERVER; kill -9 $$")
    assert (done.stdout, done.returncode) == ("55.0.0.2\n", -signal.SIGKILL)
    done = run_in("labtop", "true")
    assert done.returncode == 1
    known = "known: dc, home router, ix, laptop, server; did you mean 'laptop'?"
    assert done.stderr == f"unknown node 'labtop'; {known}\n"
    done = run_in("laptop", "true", lab_id=f"{held.lab_id}x")
    assert f"did you mean '{held.lab_id}'" in done.stderr


def test_a_client_that_leaves_at_once_ends_nothing_for_the_others(cli: Cli, held: Held) -> None:
    for message in (b"no message", marshal.dumps({"node": "laptop"}), marshal.dumps({"node": "nobody"})) * 5:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(f"\0patchbay-inspect/{os.geteuid()}/{held.lab_id}")
            sock.send(message)
    done = cli("run-in", "laptop", "--inspect", held.lab_id, "--", "echo", "still there")
    assert done.stdout == "still there\n", done.stderr


def test_an_id_that_is_taken_is_refused(cli: Cli, lab_file: Path, held: Held) -> None:
    done = cli("inspect", lab_file, "--id", held.lab_id)
    assert done.returncode == 1
    assert "choose another --id" in done.stderr


@pytest.mark.parametrize("wrong", ["", "a b", "../x"])
def test_an_id_that_cannot_be_one_is_refused(wrong: str, cli: Cli, lab_file: Path) -> None:
    done = cli("inspect", lab_file, f"--id={wrong}")
    assert done.returncode == 2
    assert f"--id: found {wrong!r}; accepted: letters, digits, '.', '_' and '-', such as" in done.stderr


@pytest.mark.ordinary
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name)
def test_a_signal_ends_inspect_with_success_and_the_lab_with_it(signum: int, cli: Cli, held: Held) -> None:
    held.process.send_signal(signum)
    assert held.process.wait(DEADLINE) == 0
    done = cli("run-in", "laptop", "--inspect", held.lab_id, "--", "true")
    assert f"no lab is held open as '{held.lab_id}'" in done.stderr


@pytest.mark.ordinary
def test_a_shell_has_a_terminal_of_its_own_and_leaves_the_users_as_it_was(
    held: Held,
) -> None:
    terminal = Terminal([*PATCHBAY, "shell", "laptop", "--inspect", held.lab_id])
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
    assert terminal.process.wait(DEADLINE) == 6
    assert terminal.settings() == before
    terminal.close()


@pytest.mark.ordinary
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP], ids=lambda s: s.name)
def test_the_terminal_is_put_back_when_the_shell_is_ended_by(signum: int, held: Held) -> None:
    terminal = Terminal([*PATCHBAY, "shell", "laptop", "--inspect", held.lab_id])
    before = terminal.settings()
    terminal.type("echo on $((40 + 2))\n")
    terminal.until(r"on 42")
    assert terminal.settings() != before
    terminal.process.send_signal(signum)
    terminal.process.wait(DEADLINE)
    wait_until(lambda: terminal.settings() == before)
    terminal.close()
