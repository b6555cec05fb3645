"""Sim files for tests: a small topology, and the steps that a test is about."""

import json
from pathlib import Path
from typing import TypeGuard

from patchbay.errors import SpecError
from patchbay.sim.spec.load import load_sim
from patchbay.sim.spec.outcome import RunEvent, StepBegan
from patchbay.sim.spec.sim import Sim

TOPOLOGY = """
[[router]]
name = "dc"
preset = "datacenter"

[[router]]
name = "v4"

[device.server.eth0]
gateway = "dc"

[device.old.eth0]
gateway = "v4"

[device.peer]
count = 3
[device.peer.eth0]
gateway = "dc"

[device.other]
count = 2
[device.other.eth0]
gateway = "dc"
"""

RUN = '[[step]]\nid = "a"\ndevice = "server"\ncmd = ["true"]\ncaptures.x.regex = "x"\n'


def run(more: str, *, device: str = "server") -> str:
    """A run step with more keys."""
    return f'[[step]]\ndevice = "{device}"\n{more}\n'


def cmd(*words: str) -> str:
    """RUN, and a run step of these words."""
    return RUN + run(f"cmd = {json.dumps(words)}")


def write_sim(
    folder: Path, steps: str, *, head: str = "", topology: str = TOPOLOGY, name: str = "it"
) -> Path:
    """A sim file; `head` comes first."""
    file = folder / f"{name}.toml"
    file.write_text(f"{head}\n{topology}\n{steps}", encoding="utf-8")
    return file


def loaded(folder: Path, steps: str, **parts: str) -> Sim:
    return load_sim(write_sim(folder, steps, **parts))


def problems_of(folder: Path, steps: str, **parts: str) -> list[str]:
    """What is wrong with a sim file, each without the file's path; empty if nothing is."""
    file = write_sim(folder, steps, **parts)
    try:
        load_sim(file)
    except SpecError as error:
        return [line.removeprefix(f"{file}:") for line in str(error).splitlines()]
    return []


def has_begun(happening: RunEvent, step: str) -> TypeGuard[StepBegan]:
    return isinstance(happening, StepBegan) and happening.step.planned.path == step


def until_there_is(file: Path) -> str:
    """A line of shell that ends when the file is there."""
    return f"while ! [ -e {file} ]; do sleep 0.02; done"  # how often the shell looks
