"""Start programs for tests, so that none of them outlives its test.

Each program has the default action for every signal (a test run in the background ignores SIGINT, one under
nohup SIGHUP, and children inherit that), and a process group of its own. The group is killed when the test
ends; a watcher kills it when pytest itself is killed. `popen` and `run` take the arguments of `subprocess`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

from attrs import define, field

from tests.patience import DEADLINE

__all__ = ["Groups", "end_groups", "popen", "run"]

Argv = Sequence[str | os.PathLike[str]]

# coreutils' env executes the program, so the pid is the program's.
_DEFAULT_SIGNALS = ("env", "--default-signal")
# Each line of input names all groups that are alive. The input ends with pytest, however pytest ends.
_WATCH = """
trap '' INT HUP TERM
while read -r line; do groups=$line; done
for group in $groups; do kill -s KILL -- "-$group"; done
"""


@define
class Groups:
    """Process groups that end with whoever holds this object, also by SIGKILL."""

    _leaders: list[subprocess.Popen[Any]] = field(factory=list)
    _watcher: subprocess.Popen[str] | None = None

    def add(self, leader: subprocess.Popen[Any]) -> None:
        self._leaders.append(leader)
        self._tell_watcher()

    def end(self) -> None:
        """Kill every group, also where only children of its leader are left, and close the leaders' pipes."""
        for leader in self._leaders:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader.pid, signal.SIGKILL)
            leader.wait(DEADLINE)
            for pipe in filter(None, (leader.stdin, leader.stdout, leader.stderr)):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        if self._watcher is not None:
            self._leaders.clear()
            self._tell_watcher()
            self._watcher.communicate()
            self._watcher = None

    def _tell_watcher(self) -> None:
        if self._watcher is None:
            null = subprocess.DEVNULL
            self._watcher = subprocess.Popen(
                ["sh", "-c", _WATCH],
                stdin=subprocess.PIPE,
                stdout=null,
                stderr=null,
                text=True,
                cwd="/",
                start_new_session=True,
            )
        assert self._watcher.stdin
        print(*(leader.pid for leader in self._leaders), file=self._watcher.stdin, flush=True)


_of_this_test = Groups()


def end_groups() -> None:
    """End what the test started and did not end. Called by conftest.py after each test."""
    _of_this_test.end()


def popen(argv: Argv, *, until_end_of: Groups = _of_this_test, **options: Any) -> subprocess.Popen[Any]:
    """Start a program as `subprocess.Popen` does; it ends with the test, or with other `Groups`."""
    process = subprocess.Popen([*_DEFAULT_SIGNALS, *argv], start_new_session=True, **options)
    until_end_of.add(process)
    return process


def run(
    argv: Argv,
    *,
    input: str | bytes | None = None,
    timeout: float = DEADLINE,
    check: bool = False,
    capture_output: bool = True,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end as `subprocess.run` does, by default with its output captured."""
    if capture_output:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    options.setdefault("stdin", subprocess.DEVNULL if input is None else subprocess.PIPE)
    with popen(argv, **options) as process:
        try:
            out, err = process.communicate(input, timeout)
        except subprocess.TimeoutExpired as expired:
            os.killpg(process.pid, signal.SIGKILL)
            expired.add_note(f"stdout so far:\n{expired.stdout!r}\nstderr so far:\n{expired.stderr!r}")
            raise
    done = subprocess.CompletedProcess(argv, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done
