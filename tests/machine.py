"""A pytest plugin: a test that fails says what the machine was doing, and how to repeat it alone."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from attrs import frozen

__all__ = ["Load", "repeat"]


@frozen
class Load:
    """What the machine's processors have done since it booted, in ticks (proc_stat(5)), summed up."""

    busy: int
    stolen: int
    total: int

    @classmethod
    def now(cls) -> Load:
        return cls.parse(Path("/proc/stat").read_text())

    @classmethod
    def parse(cls, stat: str) -> Load:
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, stat.splitlines()[0].split()[1:9])
        busy = user + nice + system + irq + softirq
        return cls(busy, steal, busy + idle + iowait + steal)

    def until(self, later: Load) -> str:
        """Describe the time between two moments."""
        total = max(1, later.total - self.total)
        busy, stolen = ((b - a) / total for a, b in ((self.busy, later.busy), (self.stolen, later.stolen)))
        return f"processors {busy:.0%} busy and {stolen:.0%} stolen by the host during the test"


def repeat(nodeid: str) -> str:
    """Return the line that runs one test alone, in the guest where it ran in the guest."""
    pytest_line = f"{sys.executable} -m pytest {shlex.quote(nodeid)}"
    if _in_guest():
        return f"{sys.executable} -m patchbay_vm.uml --env PATCHBAY_EMULATORS=netem -- {pytest_line}"
    return pytest_line


def _in_guest() -> bool:
    return os.environ.get("PATCHBAY_EMULATORS") == "netem"


_before = pytest.StashKey[Load]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_before] = Load.now()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and _before in item.stash:
        load = ", ".join(f"{each:.2f}" for each in os.getloadavg())
        said = f"load averages {load}; {item.stash[_before].until(Load.now())}\nrepeat  {repeat(item.nodeid)}"
        # The guest cannot see its host, of which the test that runs the guest tells.
        report.sections.append(("Guest" if _in_guest() else "Machine", said))
    return report
