"""A pytest plugin: after the last test, look for what the tests left on the machine, and fail for each.

The process that the user started (with xdist the controller) adopts the orphans of all tests: it becomes a
"child subreaper" (prctl(2)), so what still descends from it at the end was left behind. Temporary files go to
a folder of the run's own, which has to be empty again; elsewhere new names are looked for that could be ours,
so two runs at once on one machine report each other's files.
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.patience import DEADLINE

__all__ = ["Machine", "be_a_subreaper", "descendants", "left_over"]

_PR_SET_CHILD_SUBREAPER = 36  # include/uapi/linux/prctl.h
# Where programs put what they do not put into TMPDIR.
_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/netns", "/var/log")
_OURS = ("patchbay", "turn", "miniupnpd", "netns", "nstat", "uml")
_ACCOUNT_FILES = ("/etc/subuid", "/etc/subgid")


@frozen
class Machine:
    """What of a machine tests could change, at one moment."""

    mounts: frozenset[str]
    files: frozenset[str]
    accounts: frozenset[str]

    @classmethod
    def now(cls) -> Machine:
        mounts = (line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
        return cls(
            frozenset(f"{kind} on {where.split()[4]}" for where, kind in mounts),
            frozenset(_names_of_ours()),
            frozenset(_accounts()),
        )

    def left(self, after: Machine) -> Iterator[str]:
        """Describe what `after` has and this machine had not."""
        new = after.mounts - self.mounts
        yield from (f"mount {each}" for each in new if _could_be_ours(each))
        yield from (f"file {each}" for each in after.files - self.files)
        yield from (f"account {each}" for each in after.accounts - self.accounts)


def _could_be_ours(mount: str) -> bool:
    """Return False for what somebody else may mount at any time, such as /run/user/1000."""
    return any(f" on {folder}/" in mount for folder in _FOLDERS[:3]) or any(name in mount for name in _OURS)


def _names_of_ours() -> Iterator[str]:
    for folder in map(Path, _FOLDERS):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            yield from (
                str(entry)
                for entry in folder.iterdir()
                if folder.name == "netns" or any(name in entry.name for name in _OURS)
            )


def _accounts() -> Iterator[str]:
    yield from (entry.pw_name for entry in pwd.getpwall())
    yield from (f"group {entry.gr_name}" for entry in grp.getgrall())
    for name in _ACCOUNT_FILES:
        with contextlib.suppress(FileNotFoundError):
            yield from (f"{line} in {name}" for line in Path(name).read_text().splitlines())


def be_a_subreaper() -> None:
    """Have this process adopt the orphans among its descendants."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(ancestor: int) -> dict[int, str]:
    """Return the command line of each process that comes from `ancestor` and has not ended."""
    parents, names = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, (state, parent) = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()[:2]
            parents[pid] = int(parent)
            if state not in "ZX":
                names[pid] = (stat.parent / "cmdline").read_text().replace("\0", " ").strip()
    found = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: name for pid, name in names.items() if pid in found - {ancestor}}


def left_over(before: Machine, own: frozenset[int], scratch: Path) -> list[str]:
    """Wait until nothing is left; return what does not go."""
    give_up, left = time.monotonic() + DEADLINE, ["not looked yet"]
    while time.monotonic() < give_up:
        before_this, left = left, [*_left_now(before, own, scratch)]
        # Twice, because a process that forks and ends meanwhile is missed.
        if not before_this and not left:
            break
        time.sleep(0.05)  # how often it is looked: processes take a moment to end
    return left


def _left_now(before: Machine, own: frozenset[int], scratch: Path) -> Iterator[str]:
    alive = descendants(os.getpid())
    yield from (f"process {pid}: {name}" for pid, name in alive.items() if pid not in own)
    yield from before.left(Machine.now())
    yield from (f"file {entry}" for entry in scratch.iterdir())


# The plugin


class _Check:
    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.before = Machine.now()
        self.own = frozenset(descendants(os.getpid()))
        self.left: list[str] = []

    @pytest.hookimpl(trylast=True)  # after xdist has ended its workers
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.left = left_over(self.before, self.own, self.scratch)
        shutil.rmtree(self.scratch, ignore_errors=True)
        if self.left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.left:
            terminalreporter.section("left behind by the tests", red=True)
            for each in self.left:
                terminalreporter.line(each)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    be_a_subreaper()
    # pytest keeps the files of tests of the last three runs, for whoever looks into a failure.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    scratch = Path(tempfile.mkdtemp(prefix="pb-tests-"))
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    config.pluginmanager.register(_Check(scratch))
