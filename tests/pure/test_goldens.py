"""The whole plan of a lab file, as text: a change of any command shows here and is to be read."""

import shlex
import subprocess
from pathlib import Path

import pytest
from attrs import evolve

from patchbay.config.lab_file import read_lab
from patchbay.layout.allocate import lay_out
from patchbay.layout.layout import Layout
from patchbay.model.link import Emulator
from patchbay.plan.change import between
from patchbay.plan.conditions import relay_name
from patchbay.plan.text import as_text
from tests.pure.goldens import FOLDER, assert_golden

LABS = sorted(FOLDER.glob("*.toml"))


def layout_of(file: Path) -> Layout:
    """The lab of a file, whose name tells where packets are carried by relays."""
    userspace = file.stem.endswith("-userspace")
    return evolve(lay_out(read_lab(file)), emulator=Emulator.USERSPACE if userspace else Emulator.NETEM)


@pytest.mark.parametrize("file", LABS, ids=lambda file: file.stem)
def test_the_plan_of(file: Path) -> None:
    text = as_text(between(None, layout_of(file)), f"the lab of {file.name}")
    assert_golden(f"{file.stem}.plan.txt", text.replace(str(FOLDER), "/goldens"))


def test_a_relay_shows_as_the_command_that_starts_it() -> None:
    text = (FOLDER / "link-wifi-userspace.plan.txt").read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if "relay" in line and not line.startswith("#"))
    words = shlex.split(line)
    assert words[:3] == ["nsenter", "--net=/run/netns/home", "python3"]
    assert words[3:9] == ["-m", "patchbay.emulator.relay", "--far", "laptop", "--near", "wire1-near"]
    # By this a relay is found and ended.
    (wire,) = layout_of(FOLDER / "link-wifi-userspace.toml").wires.values()
    assert relay_name(wire) in " ".join(words)
    wifi = ["latency_ms=5", "jitter_ms=2", "loss_pct=0.1", "limit=6782"]
    assert words[words.index("--up") :] == ["--up", *wifi, "--down", *wifi]
    assert " tc " not in text


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["odd-names", "mtu"])
def test_a_kernel_accepts_the_script_of(name: str) -> None:
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
