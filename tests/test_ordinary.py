"""What works as root works as an ordinary user."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ordinary_user import OrdinaryUser

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[1]


def readme_example() -> str:
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_example_of_the_readme_runs_as_an_ordinary_user(ordinary_user: OrdinaryUser) -> None:
    done = ordinary_user.run([ordinary_user.python, "-"], input=readme_example())
    assert "1 packets transmitted, 1 received" in done.stdout
    assert "b'hello from behind the NAT'" in done.stdout
    assert done.stderr == ""


def test_every_sim_that_ships_passes_as_an_ordinary_user(ordinary_user: OrdinaryUser) -> None:
    done = ordinary_user.run([*ordinary_user.patchbay_argv, "run", str(ordinary_user.root / "sims")])
    number = len(list((ROOT / "sims").glob("*.toml")))
    assert f"{number} of {number} sims passed" in done.stdout


def test_every_sim_that_ships_and_the_example_run_as_this_user(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "patchbay_cli.main", "run", str(ROOT / "sims")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    number = len(list((ROOT / "sims").glob("*.toml")))
    assert f"{number} of {number} sims passed" in done.stdout, done.stdout + done.stderr
    done = subprocess.run(
        [sys.executable, "-"], input=readme_example(), capture_output=True, text=True, check=False
    )
    assert "b'hello from behind the NAT'" in done.stdout, done.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "folder",
    ["tests/kernel", "tests/cli", "tests/emulator", "tests/links/test_live.py", "tests/nat/test_many.py"],
)
def test_the_tests_on_a_real_kernel_pass_as_an_ordinary_user(
    ordinary_user: OrdinaryUser, folder: str
) -> None:
    argv = [
        ordinary_user.python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(ordinary_user.root / folder),
    ]
    done = ordinary_user.run(argv, timeout=600, check=False, cwd=ordinary_user.root)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout
