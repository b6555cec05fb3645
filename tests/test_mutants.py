"""Each wrong emulator is given something else than the right one, and has tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attrs import evolve

from patchbay.model.link import Emulator
from patchbay.plan.change import between
from patchbay.tools.commands import CheckQdiscs, StartService, Tc
from tests import mutants
from tests.pure.labs import layout_of

ROOT = Path(__file__).parents[1]

LAB = """
[[router]]
name = "r"
downlink = { latency_ms = 10, rate_kbit = 8000 }
[device.d.eth0]
gateway = "r"
link.up = { latency_ms = 20, rate_kbit = 1000, loss_pct = 10 }
link.down = { latency_ms = 30, rate_kbit = 2000 }
"""


def given(emulator: Emulator) -> list[object]:
    """What the emulator is told, and what is read back of it."""
    plan = between(None, evolve(layout_of(LAB), emulator=emulator))
    return [command for command in plan if isinstance(command, Tc | CheckQdiscs | StartService)]


@pytest.mark.parametrize("emulator", [Emulator.USERSPACE, Emulator.NETEM], ids=str)
@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_a_mutant_gives_the_emulator_something_else(
    name: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = given(emulator)
    mutants.apply(name, monkeypatch)
    assert (given(emulator) == right) == (name == "none")


def test_the_tests_that_have_to_see_it_exist() -> None:
    for mutant in mutants.MUTANTS.values():
        for test in mutant.tests:
            file, _, function = test.partition("::")
            name = re.match(r"\w+", function)
            assert name and f"async def {name[0]}(" in (ROOT / "tests" / "links" / file).read_text(), test
