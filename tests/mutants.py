"""Emulators that are wrong on purpose, and whether the tests of links see it.

    python -m tests.mutants [--times N] [NAME ...]

Each mutant is run with each emulator, N times, against the tests that have to fail for it; `none` has to
pass. The machine should be idle. netem's runs are in the guest where this kernel has none. The exit status is
1 if any was missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from attrs import evolve, frozen

from patchbay.layout.layout import WireLayout
from patchbay.model.link import PERFECT, Condition, Impairment
from patchbay.plan import conditions
from patchbay_vm.kernel import host_has_netem

__all__ = ["ENVIRONMENT", "MUTANTS", "Mutant", "apply"]

ROOT = Path(__file__).parents[1]
ENVIRONMENT = "PATCHBAY_MUTANT"
# Seconds for which a test samples on: on an idle machine the first samples show what is to be seen.
PATIENCE = "2"

Change = Callable[[WireLayout], Condition]


def _each(change: Callable[[Impairment], Impairment], *ways: str) -> Change:
    """Change the impairments of these directions."""
    return lambda wire: evolve(wire.condition, **{way: change(getattr(wire.condition, way)) for way in ways})


def _later(it: Impairment) -> Impairment:
    return evolve(it, latency_ms=it.latency_ms + 2) if it.latency_ms else it


def _scaled(key: str, factor: float) -> Callable[[Impairment], Impairment]:
    return lambda it: evolve(it, **{key: getattr(it, key) * factor}) if getattr(it, key) else it


@frozen
class Mutant:
    """What becomes of the condition of each wire, and the tests that have to see it."""

    change: Change
    tests: tuple[str, ...]


_RTT = "test_delay.py::test_the_round_trip_is_the_delay_of_both_directions[{emulator}-4]"
_ONE_WAY = "test_delay.py::test_each_direction_has_its_own_delay[{emulator}]"
_TWO_HOPS = "test_delay.py::test_two_conditions_in_a_row_add_up[{emulator}]"
_RATES = "test_rate.py::test_each_direction_has_its_own_rate_for_tcp_and_udp[{emulator}-10-50]"
_SHARED = "test_rate.py::test_a_shared_downlink_is_shared_and_the_narrower_of_two_hops_counts[{emulator}]"
_LOSS = (
    "test_loss.py::test_udp_is_lost_as_often_as_asked_for_and_the_sender_does_not_hear_of_it[{emulator}-up]"
)

MUTANTS = {
    "none": Mutant(lambda wire: wire.condition, ()),
    "up-2ms-late": Mutant(_each(_later, "up"), (_RTT, _ONE_WAY)),
    "down-2ms-late": Mutant(_each(_later, "down"), (_RTT, _ONE_WAY)),
    "rate-7-percent-high": Mutant(_each(_scaled("rate_kbit", 1.07), "up", "down"), (_RATES, _SHARED)),
    "rate-7-percent-low": Mutant(_each(_scaled("rate_kbit", 0.93), "up", "down"), (_RATES, _SHARED)),
    "loss-a-third-low": Mutant(_each(_scaled("loss_pct", 2 / 3), "up", "down"), (_LOSS,)),
    "directions-swapped": Mutant(lambda wire: Condition(wire.condition.down, wire.condition.up), (_ONE_WAY,)),
    "no-downlinks": Mutant(
        lambda wire: PERFECT if wire.key[0] == "downlink" else wire.condition, (_TWO_HOPS,)
    ),
    "no-device-links": Mutant(
        lambda wire: PERFECT if wire.key[0] == "link" else wire.condition, (_TWO_HOPS,)
    ),
}


def apply(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every plan of this process give the emulators what the mutant makes of the conditions."""
    change = MUTANTS[name].change
    exits, relay_args = conditions._exits, conditions._relay_args

    def wrong(wire: WireLayout) -> WireLayout:
        return evolve(wire, condition=change(wire))

    monkeypatch.setattr(conditions, "_exits", lambda wire: exits(wrong(wire)))
    monkeypatch.setattr(conditions, "_relay_args", lambda wire: relay_args(wrong(wire)))


# Running them


def _tests(name: str, emulator: str) -> list[str]:
    every = dict.fromkeys(test for mutant in MUTANTS.values() for test in mutant.tests)
    return [f"tests/links/{test.format(emulator=emulator)}" for test in MUTANTS[name].tests or every]


def _passes(name: str, emulator: str, test: str) -> bool:
    own = {"PATCHBAY_EMULATORS": emulator, "PATCHBAY_PATIENCE": PATIENCE}
    own |= {} if name == "none" else {ENVIRONMENT: name}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:tests.leftovers", test]
    if emulator == "netem" and not host_has_netem():
        variables = [word for key, value in own.items() for word in ("--env", f"{key}={value}")]
        argv = [sys.executable, "-m", "patchbay_vm.uml", *variables, "--", *argv]
    done = subprocess.run(argv, cwd=ROOT, env=os.environ | own, capture_output=True, text=True, check=False)
    if done.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"{name}, {test}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.returncode == pytest.ExitCode.OK


def _judge(names: list[str], times: int, emulator: str) -> int:
    """Run the mutants with one emulator. Return how often one was missed, or `none` failed."""
    wrong = 0
    for name in names:
        for test in _tests(name, emulator):
            right = sum(_passes(name, emulator, test) == (name == "none") for _ in range(times))
            wrong += times - right
            verdict = "passed" if name == "none" else "seen"
            print(f"{right:3} of {times} {verdict:6}  {name:19} {test}", flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--times", type=int, default=1, metavar="N", help="run each test N times (1)")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(MUTANTS)}; all by default")
    asked = parser.parse_args()
    if unknown := set(asked.names) - MUTANTS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; accepted: {', '.join(MUTANTS)}")
    judge = partial(_judge, asked.names or list(MUTANTS), asked.times)
    with ThreadPoolExecutor() as emulators:  # side by side: most of their time is waiting
        wrong = sum(emulators.map(judge, ("userspace", "netem")))
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
