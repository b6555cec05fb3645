"""What tests start is as a terminal would start it, and ends with the test, whatever happens to pytest."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import wait_until
from tests.processes import Groups, popen, run

ROOT = Path(__file__).parents[1]

# Starts a program that leaves a child behind, both in one group, and tells their pids.
HOLDER = """
import sys, time
from tests.processes import popen
process = popen(["sh", "-c", "sleep 1000 & echo $! $$; exec sleep 1000"], stdout=-1, text=True)
print(process.stdout.readline(), flush=True)
time.sleep(1000)  # until it is killed
"""


def is_running(pid: int) -> bool:
    """Return False for a zombie: it has ended, and waits for its parent to take note."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM], ids=lambda it: it.name)
def test_a_program_has_default_signals_where_pytest_ignores_them(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        process = popen(["sleep", "1000"])
        # Whoever has started is not `env` any more, whose own disposition is pytest's.
        wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
        process.send_signal(number)
        assert process.wait() == -number
    finally:
        signal.signal(number, before)


def test_a_group_ends_with_its_test_though_its_leader_has_ended() -> None:
    groups = Groups()
    argv = ["sh", "-c", "sleep 1000 & echo $!"]
    with popen(argv, until_end_of=groups, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        child = int(process.stdout.readline())
    assert is_running(child)
    groups.end()
    wait_until(lambda: not is_running(child))


def test_a_group_ends_when_pytest_is_killed() -> None:
    with popen([sys.executable, "-c", HOLDER], cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        pids = list(map(int, holder.stdout.readline().split()))
        assert all(map(is_running, pids))
        holder.kill()
    wait_until(lambda: not any(map(is_running, pids)))


def test_a_program_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        run(["sh", "-c", f"sleep 1000 & echo $! $$ > {note}; echo begun; wait"], timeout=0.5)
    assert "begun" in "".join(caught.value.__notes__)
    wait_until(lambda: not any(map(is_running, map(int, note.read_text().split()))))
