"""Directions of links as qdiscs, and what a real `tc` showed of them (goldens/qdiscs.json, kernel 6.12)."""

import json
from typing import Any

from patchbay.model.link import Impairment
from patchbay.model.names import IfName
from patchbay.plan.shape import shape_of
from patchbay.tools.tc import Netem, Tbf, child_del, netem_replace, tbf_replace
from tests.pure.goldens import FOLDER

DEV = IfName("wire1-near")

EVERYTHING = Impairment(40, 10, 1.5, 2000, 5, 2, 0.5, 64)
# In this order on one interface, so that each has to replace the one before it.
DIRECTIONS = {
    "every option": EVERYTHING,
    "no option but loss": Impairment(loss_pct=1),
    "latency alone": Impairment(latency_ms=25),
    "a fraction of everything": Impairment(0.25, 0.125, 0.1, 1234.5, 0.01, 0.001, 33.3),
    "everything again": EVERYTHING,
    "a rate alone": Impairment(rate_kbit=20_000),
    "the least": Impairment(latency_ms=0.001, loss_pct=0.01, rate_kbit=12, buffer_kb=2),
    "the most": Impairment(60_000, 2_000, 100, 100_000_000, 100, 100, 100, 1_000_000),
    "jitter and order": Impairment(5, 5),
    "corruption alone": Impairment(corrupt_pct=100),
}
DIRECTION_IDS = [*DIRECTIONS]


def wanted_of(impairment: Impairment) -> tuple[Netem, Tbf | None]:
    shape, rate = shape_of(impairment, None), impairment.rate_kbit
    return Netem(impairment, shape.limit), Tbf(rate, shape.burst, shape.buffer) if rate else None


def command_lines(case: str) -> list[str]:
    """What turns the direction before into that of `case`, as lines of `tc -batch -`."""
    netem, tbf = wanted_of(DIRECTIONS[case])
    number = DIRECTION_IDS.index(case)
    had_rate = number > 0 and DIRECTIONS[DIRECTION_IDS[number - 1]].rate_kbit
    lines = [child_del(DEV)] if had_rate and not tbf else []
    lines += [netem_replace(DEV, netem), *([tbf_replace(DEV, tbf)] if tbf else [])]
    return [" ".join(line) for line in lines]


def recorded() -> dict[str, dict[str, Any]]:
    """By case: `lines`, and what `tc -j qdisc show` `shown` after them."""
    recorded: dict[str, dict[str, Any]] = json.loads((FOLDER / "qdiscs.json").read_text(encoding="utf-8"))
    return recorded
