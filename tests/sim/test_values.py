"""Sims and what becomes of them are plain values: they can be pickled, and need nothing that runs labs."""

from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from patchbay.report.results import as_values
from patchbay.sim.spec.captures import Captured
from patchbay.sim.spec.find import load_sims
from patchbay.sim.spec.outcome import SimOutcome, Status
from patchbay.sim.spec.results import Measured
from patchbay.sim.spec.sim import Sim
from patchbay.sim.spec.steps import ACTIONS, Step

SIMS = load_sims([Path(__file__).parents[2] / "sims"], Path.cwd())


@pytest.mark.parametrize("sim", SIMS, ids=lambda sim: sim.name)
def test_a_sim_can_be_pickled(sim: Sim) -> None:
    assert pickle.loads(pickle.dumps(sim)) == sim


def test_an_outcome_can_be_pickled_at_any_time(tmp_path: Path) -> None:
    outcome = SimOutcome(sim=SIMS[0], folder=tmp_path)
    outcome.begin()
    step = outcome.steps[0]
    step.begin()
    step.command, step.exit = ["true"], 0
    step.captured["x"] = Captured("1", "stdout line 1: 1")
    step.measured = Measured(duration=1.5)
    step.end(Status.FAILED, "why")
    again = pickle.loads(pickle.dumps(outcome))
    assert as_values(again) == as_values(outcome)
    assert again.started < datetime.now(UTC)


def test_reading_a_sim_loads_nothing_that_runs_one() -> None:
    code = "import sys, patchbay.sim.spec.find, patchbay.sim.spec.outcome; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert not {"trio", "subprocess", "patchbay.lab.lab", "patchbay.sandbox.sandbox"} & loaded


@pytest.mark.parametrize("kind", ACTIONS.values(), ids=ACTIONS)
def test_each_field_of_a_step_with_texts_or_names_says_so(kind: type[Step]) -> None:
    """A field without a kind is a time, a number or a parser: nothing in which somebody else is named."""
    plain = {each.name for each in attrs.fields(kind) if not each.metadata}
    assert plain <= {"timeout", "capture_timeout", "parser", "expect_exit", "ready_after", "duration"}
