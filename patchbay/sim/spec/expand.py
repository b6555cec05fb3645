"""Counted devices: a step aimed at `NAME` becomes one for each of NAME-0, NAME-1, …

Its id, its references to other steps that are repeated over the same devices, and `NAME` in its variables
become those of its own device. Elsewhere `requires`, checks and `wait-for` mean all of them, and a text
must name one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve

from patchbay.errors import Problem
from patchbay.sim.spec.interpolate import NodeAddress, Part, Spellings, parse, unparse
from patchbay.sim.spec.refs import Ref
from patchbay.sim.spec.steps import PlannedStep, Step, WaitForStep

__all__ = ["expand"]


def expand(
    steps: Sequence[tuple[str, Step]], counts: Mapping[str, int], spellings: Spellings
) -> tuple[list[PlannedStep], list[Problem]]:
    """Return the steps, each (path, step), written out. `counts` is by device; `spellings` are of nodes."""
    repeated = {
        step.own_id: step.device for _, step in steps if step.own_id and step.device and step.device in counts
    }
    expansion = _Expansion(counts, repeated, spellings)
    planned = [each for path, step in steps for each in expansion.copies(path, step)]
    return planned, list(dict.fromkeys(expansion.problems))


class _Expansion:
    """The repetitions of a sim: `counts` by device, `repeated` the device of each repeated step's id."""

    def __init__(self, counts: Mapping[str, int], repeated: Mapping[str, str], spellings: Spellings) -> None:
        self.counts = counts
        self.repeated = repeated
        self.spellings = spellings
        self.problems: list[Problem] = []

    def copies(self, path: str, step: Step) -> Iterator[PlannedStep]:
        over = step.device if step.device in self.counts else None
        if isinstance(step, WaitForStep) and over is None:
            over = self.repeated.get(step.id)
        if over is None:
            yield PlannedStep(path, path, step.rewritten(_Copy(self, path, step, None, 0)))
            return
        for number in range(self.counts[over]):
            copy = step.rewritten(_Copy(self, path, step, over, number))
            yield PlannedStep(path, f"{path}-{number}", copy)

    def ambiguous(self, path: str, name: str, number: int, what: str) -> None:
        message = f"'{name}' is {number} {what}; accepted: one of them, {name}-0 to {name}-{number - 1}"
        self.problems.append(Problem(path, message))


class _Copy:
    """The `Rewriter` of one repetition: number `number` over the device `over`, None for the only one."""

    def __init__(self, whole: _Expansion, path: str, step: Step, over: str | None, number: int) -> None:
        self._whole = whole
        self._path = path
        self._over = over
        self._number = number
        self.device = self._numbered(over) if over and step.device == over else step.device

    def _numbered(self, name: str) -> str:
        return f"{name}-{self._number}"

    def own_id(self, name: str) -> str:
        return self._numbered(name) if self._whole.repeated.get(name, "") == self._over else name

    def one(self, where: str, ref: Ref) -> Ref:
        base = self._whole.repeated.get(ref.id)
        if base is None:
            return ref
        if base != self._over:
            self._whole.ambiguous(f"{self._path}.{where}", ref.id, self._whole.counts[base], "steps")
            return ref
        return evolve(ref, id=self._numbered(ref.id))

    def many(self, ref: Ref) -> list[Ref]:
        base = self._whole.repeated.get(ref.id)
        if base is None or base == self._over:
            return [self.one("", ref)]
        return [evolve(ref, id=f"{ref.id}-{each}") for each in range(self._whole.counts[base])]

    def text(self, where: str, text: str) -> str:
        return unparse(self._variable(where, part) for part in parse(text, self._whole.spellings))

    def _variable(self, where: str, part: Part) -> Part:
        if isinstance(part, Ref):
            return self.one(where, part)
        if isinstance(part, NodeAddress) and part.node in self._whole.counts:
            if part.node == self._over:
                return evolve(part, node=self._numbered(part.node))
            size = self._whole.counts[part.node]
            self._whole.ambiguous(f"{self._path}.{where}", part.node, size, "devices")
        return part
