"""The whole plan of a lab file, as text: a change of any command shows here and is to be read."""

import subprocess
from pathlib import Path

import pytest

from patchbay.addressing.allocate import lay_out
from patchbay.config.lab_file import read_lab
from patchbay.plan.change import between
from patchbay.plan.text import as_text
from tests.pure.goldens import FOLDER, assert_golden

LABS = sorted(FOLDER.glob("*.toml"))


@pytest.mark.parametrize("file", LABS, ids=lambda file: file.stem)
def test_the_plan_of(file: Path) -> None:
    plan = between(None, lay_out(read_lab(file)))
    assert_golden(f"{file.stem}.plan.txt", as_text(plan, f"the lab of {file.name}"))


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["odd-names", "mtu"])
def test_a_kernel_accepts_by_hand_the_plan_of(name: str) -> None:
    inside = 'mount -t tmpfs tmpfs /run && mkdir /run/netns && sh -e "$0"'
    done = subprocess.run(
        ["unshare", "-rmn", "sh", "-c", inside, FOLDER / f"{name}.plan.txt"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_golden_belongs_to_a_lab_file() -> None:
    plans = {file.name.removesuffix(".plan.txt") for file in FOLDER.glob("*.plan.txt")}
    assert plans == {file.stem for file in LABS}
