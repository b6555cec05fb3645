"""What works as root works as an ordinary user."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.ordinary_user import OrdinaryUser
from tests.patience import DEADLINE
from tests.processes import run

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[1]
MARK = "pytest.mark." + "ordinary"
MARKED = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if MARK in file.read_text()]


def readme_example() -> str:
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def assert_is_what_the_readme_says(output: str) -> None:
    assert "1 packets transmitted, 1 received" in output
    assert "b'hello from behind the NAT'" in output


def test_the_example_of_the_readme_runs_as_an_ordinary_user(ordinary_user: OrdinaryUser) -> None:
    done = ordinary_user.run([ordinary_user.python, "-"], input=readme_example())
    assert_is_what_the_readme_says(done.stdout)
    assert done.stderr == ""


def test_the_example_of_the_readme_runs_as_this_user() -> None:
    done = run([sys.executable, "-"], input=readme_example(), text=True)
    assert_is_what_the_readme_says(done.stdout)
    assert done.stderr == ""


def test_every_sim_that_ships_passes_as_an_ordinary_user(ordinary_user: OrdinaryUser) -> None:
    argv = [*ordinary_user.patchbay_argv, "run", str(ordinary_user.root / "sims"), "--jobs", "2"]
    done = ordinary_user.run(argv, timeout=8 * DEADLINE)
    number = len(list((ROOT / "sims").glob("*.toml")))
    assert f"{number} of {number} sims passed" in done.stdout


@pytest.mark.parametrize("folder", sorted({file.parent.name for file in MARKED}))
def test_what_could_differ_passes_as_an_ordinary_user(ordinary_user: OrdinaryUser, folder: str) -> None:
    if os.geteuid() != 0:
        # These tests run as an ordinary user anyway, with all others.
        assert ordinary_user.become == ()
        return
    files = [str(file.relative_to(ROOT)) for file in MARKED if file.parent.name == folder]
    # Without the check of what the tests leave: it would find what other tests, beside it, still have.
    argv = ["pytest", "-m", "ordinary", "-p", "no:cacheprovider", "-p", "no:tests.leftovers", *files]
    done = ordinary_user.run(
        [ordinary_user.python, "-m", *argv], timeout=8 * DEADLINE, check=False, cwd=ordinary_user.root
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    found = re.search(r"^collected (\d+) items?(?: / \d+ deselected / (\d+) selected)?$", done.stdout, re.M)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert found and passed
    assert passed[1] == (found[2] or found[1])
    assert "skipped" not in done.stdout
