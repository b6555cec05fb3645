"""Sim -> plain values, in the words of a sim file: what is read back is the same sim."""

from __future__ import annotations

from typing import Any

import cattrs

from patchbay.config.encode import lab_table
from patchbay.sim.spec.durations import Seconds, in_words
from patchbay.sim.spec.fields import Port
from patchbay.sim.spec.sim import Sim

__all__ = ["as_table"]


def as_table(sim: Sim) -> dict[str, Any]:
    """Return the sim as a table of the shape of its file, with every repeated step written out."""
    converter = cattrs.Converter(omit_if_default=True)
    converter.register_unstructure_hook(Seconds, in_words)
    converter.register_unstructure_hook(Port, lambda port: {port.protocol: port.number})
    converter.register_unstructure_hook(str | Port | None, converter.unstructure)
    head = {"name": sim.name, **({} if sim.timeout is None else {"timeout": in_words(sim.timeout)})}
    steps = [{"action": planned.step.action, **converter.unstructure(planned.step)} for planned in sim.steps]
    table = {"sim": head, **lab_table(sim.lab), "step": steps}
    return {key: value for key, value in table.items() if value}
