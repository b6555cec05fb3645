"""Checks that everything which the steps of a sim name exists: other steps, captures, and nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import frozen

from patchbay.errors import Problem, did_you_mean
from patchbay.sim.spec.captures import Capture
from patchbay.sim.spec.fields import unknown_capture
from patchbay.sim.spec.interpolate import NodeAddress, Spellings, faults, parse
from patchbay.sim.spec.refs import Ref
from patchbay.sim.spec.steps import CommandStep, Step, WaitForStep
from patchbay.sim.spec.topology import Topology

__all__ = ["check_steps"]


@frozen
class _Declared:
    index: int
    path: str
    step: Step


def check_steps(
    steps: Sequence[tuple[str, Step]], topology: Topology | None, unclear: Mapping[str, str] | None
) -> list[Problem]:
    """Return every dangling name and duplicate id of the steps, each (path, step), in the file's order.

    `topology` is None where it is not known. `unclear` has the places, by id, of steps that could not be
    read, or not whole; it is None where not even their ids are known. What may be theirs is not judged.
    """
    problems: list[Problem] = []
    declared: dict[str, _Declared] = {}
    for index, (path, step) in enumerate(steps):
        for name in _ids(step, topology.counts if topology else {}):
            first = declared.setdefault(name, _Declared(index, path, step)).path
            first = (unclear or {}).get(name, first)
            if first != path:
                problems.append(Problem(f"{path}.id", f"duplicate id '{name}': {first} has it too"))
    checker = _Checker(declared, topology, unclear)
    for index, (path, step) in enumerate(steps):
        problems += checker.step(index, path, step)
    return list(dict.fromkeys(problems))


def _ids(step: Step, counts: Mapping[str, int]) -> Iterator[str]:
    if step.own_id:
        yield step.own_id
        yield from (f"{step.own_id}-{number}" for number in range(counts.get(step.device or "", 0)))


class _Checker:
    def __init__(
        self, declared: Mapping[str, _Declared], topology: Topology | None, unclear: Mapping[str, str] | None
    ) -> None:
        self._declared = declared
        self._topology = topology
        self._unclear = unclear

    def step(self, index: int, path: str, step: Step) -> Iterator[Problem]:
        yield from self._device(f"{path}.device", step.device)
        if isinstance(step, WaitForStep):
            yield from self._target(index, f"{path}.id", step.id)
        for where, ref in step.refs():
            own = where.startswith("results.")
            yield from self._ref(index, f"{path}.{where}", ref, own=own)
        for where, text in step.texts():
            yield from self._text(index, f"{path}.{where}", text)

    def _device(self, path: str, name: str | None) -> Iterator[Problem]:
        if name is not None and self._topology and name not in self._topology.targets:
            known = {*self._topology.targets} - {"ix"}
            yield Problem(path, f"unknown device '{name}'{_known(name, known)}")

    def _target(self, index: int, path: str, name: str) -> Iterator[Problem]:
        found = self._find(index, path, name)
        if isinstance(found, Problem):
            yield found
        elif found and not isinstance(found.step, CommandStep):
            yield Problem(path, f"'{name}' is a {found.step.action} step; accepted: a spawn or run step")

    def _ref(self, index: int, path: str, ref: Ref, *, own: bool) -> Iterator[Problem]:
        found = self._find(index, path, ref.id, own=own)
        if isinstance(found, Problem):
            yield found
        elif found and ref.capture not in found.step.declares:
            yield Problem(path, f"in '{ref}': {_no_capture(found, ref.capture)}")

    def _find(self, index: int, path: str, name: str, *, own: bool = False) -> _Declared | Problem | None:
        """Return the step of that id; None where that cannot be judged."""
        found = self._declared.get(name)
        if self._unclear is None or {name, name.rpartition("-")[0]} & self._unclear.keys():
            return None
        if found is None:
            return Problem(path, f"unknown step '{name}'{_known(name, self._declared)}")
        if found.index > index or (found.index == index and not own):
            when = "runs after this step" if found.index > index else "is this step itself"
            return Problem(path, f"'{name}' ({found.path}) {when}; accepted: the id of an earlier step")
        return found

    def _text(self, index: int, path: str, text: str) -> Iterator[Problem]:
        parts = parse(text, self._topology.spellings if self._topology else Spellings({}, {}, {}))
        if self._topology:
            yield from (Problem(path, message) for message in faults(parts))
        for part in parts:
            if isinstance(part, Ref):
                yield from self._ref(index, path, part, own=False)
            elif isinstance(part, NodeAddress) and self._lacks(part):
                where = f" on {part.iface}" if part.iface else ""
                yield Problem(path, f"'{part.node}' has no IPv{part.version} address{where}")

    def _lacks(self, address: NodeAddress) -> bool:
        return self._topology is not None and self._topology.lacks_address(address)


def _no_capture(declared: _Declared, name: str) -> str:
    known: dict[str, Capture] = declared.step.declares
    return f"{declared.path} '{declared.step.own_id}': {unknown_capture(name, known)}"


def _known(wrong: str, known: Iterable[str]) -> str:
    names = sorted(known)
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"; known: {listed}{did_you_mean(wrong, names)}" if names else "; there is none"
