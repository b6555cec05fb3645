"""What pytest does beside running the tests: it looks for leftovers, and a failure tells of the machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve

from tests.leftovers import Machine
from tests.machine import Load, repeat
from tests.patience import DEADLINE
from tests.processes import run

# Real processes under a real kernel; and not quick.
pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[1]


# As `python -m pytest`, but with a short wait for what does not go.
PYTEST = """
import sys
import tests.patience
tests.patience.DEADLINE = 1.0
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def pytest_on(folder: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a file of one test under the plugins."""
    (folder / "test_it.py").write_text(test)
    plugins = ["-p", "no:cacheprovider", "-p", "tests.leftovers", "-p", "tests.machine"]
    argv = [sys.executable, "-c", PYTEST, *plugins, *options, "test_it.py"]
    env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
    return run(argv, cwd=folder, env=env, text=True)


LEAVES = {
    "process": (
        "import subprocess\ndef test(): subprocess.run(['sh', '-c', 'setsid sleep 3 >&2 & exit'])",
        r"process \d+: sleep 3",
    ),
    "file": ("import tempfile\ndef test(): tempfile.mkstemp(prefix='lost')", r"file \S+/lost"),
}


@pytest.mark.parametrize("what", LEAVES)
@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_what_tests_leave_behind_fails_the_run(what: str, options: tuple[str, ...], tmp_path: Path) -> None:
    test, told = LEAVES[what]
    done = pytest_on(tmp_path, test, *options)
    assert (done.returncode, "1 passed" in done.stdout) == (pytest.ExitCode.TESTS_FAILED, True), done
    assert re.search(rf"left behind by the tests =+\n{told}", done.stdout)


def test_tests_that_leave_nothing_pass(tmp_path: Path) -> None:
    test = "import subprocess\ndef test(): subprocess.run(['sh', '-c', 'sleep 0.1 & exit'])"
    done = pytest_on(tmp_path, test)
    assert done.returncode == 0, done
    assert "left behind" not in done.stdout


def test_new_mounts_files_and_accounts_are_seen() -> None:
    before = Machine.now()
    assert list(before.left(before)) == []
    after = evolve(
        before,
        mounts=before.mounts | {"tmpfs on /tmp/x", "tmpfs on /run/patchbay-x", "tmpfs on /run/user/1000"},
        files=before.files | {"/tmp/patchbay-x"},
        accounts=before.accounts | {"patchbay-somebody", "patchbay-somebody:100000:65536 in /etc/subuid"},
    )
    assert sorted(before.left(after)) == [
        "account patchbay-somebody",
        "account patchbay-somebody:100000:65536 in /etc/subuid",
        "file /tmp/patchbay-x",
        "mount tmpfs on /run/patchbay-x",
        "mount tmpfs on /tmp/x",
    ]


def test_a_failure_tells_of_the_machine_and_how_to_repeat_it(tmp_path: Path) -> None:
    done = pytest_on(tmp_path, "def test(): assert False")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert re.search(r"load averages [\d., ]+; processors \d+% busy and \d+% stolen by the host", done.stdout)
    assert re.search(r"^repeat  \S+ -m pytest test_it.py::test$", done.stdout, re.MULTILINE)


def test_a_test_of_netem_is_repeated_in_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    nodeid = "tests/links/test_rate.py::test_it[netem]"
    assert repeat(nodeid).endswith(f"-m pytest '{nodeid}'")
    monkeypatch.setenv("PATCHBAY_EMULATORS", "netem")
    assert "-m patchbay_vm.uml --env PATCHBAY_EMULATORS=netem -- " in repeat(nodeid)


def test_load_is_the_share_of_all_processors() -> None:
    earlier = Load.parse("cpu  100 0 50 1000 10 0 5 20 0 0\n")
    later = Load.parse("cpu  140 5 60 1030 15 3 7 25 0 0\n")
    assert earlier.until(later) == "processors 60% busy and 5% stolen by the host during the test"


def test_there_is_one_deadline_and_it_is_generous() -> None:
    assert DEADLINE >= 60
