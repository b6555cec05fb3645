"""TOML -> steps: exact types, nothing coerced, every problem kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import cattrs
from attrs import evolve, frozen

from patchbay.config.converter import Unacceptable, collect, describe_value, make_converter
from patchbay.errors import Problem, did_you_mean
from patchbay.sim.spec.durations import Seconds, parse_duration
from patchbay.sim.spec.fields import Port
from patchbay.sim.spec.steps import ACTIONS, CommandStep, Step

__all__ = ["Decoded", "SimTable", "converter", "decode_sim", "decode_step", "not_yet"]

# Words of parts of patchbay that do not exist yet: the message says so, instead of "unknown key".
_KEYS_NOT_YET = frozenset({"use", "vars", "when"})
_PARSERS_NOT_YET = frozenset({"ndjson", "iperf3-json"})
_ACTIONS_NOT_YET = frozenset(
    {
        *("set-link-condition", "set-impair", "link-down", "link-up", "set-default-route", "replug-iface"),
        *("set-nat", "flush-nat", "set-firewall", "break-region-link", "restore-region-link"),
        *("gen-certs", "gen-file", "parallel"),
    }
)


@frozen
class SimTable:
    """`[sim]`."""

    name: str | None = None
    topology: str | None = None
    timeout: Seconds | None = None


def not_yet(path: str, what: str = "") -> Problem:
    """Return the problem of something that this version does not have."""
    return Problem(path, f"{what}{' ' if what else ''}is not available in this version of patchbay")


def converter() -> cattrs.Converter:
    """Return the converter of lab files, and durations."""
    made = make_converter()
    made.register_structure_hook(Seconds, lambda value, _: parse_duration(value))
    made.register_structure_hook_func(lambda kind: kind == (str | Port | None), _readiness)
    return made


def _readiness(value: object, _: object) -> str | Port | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        ((protocol, number),) = value.items()
        if protocol in ("tcp", "udp") and type(number) is int and 0 < number < 65536:
            return Port(protocol, number)
    found = f"{value}" if isinstance(value, Mapping) else describe_value(value)
    raise Unacceptable(f"found {found}; accepted: a capture's name, {{ tcp = PORT }} or {{ udp = PORT }}")


def _structured(made: cattrs.Converter, table: Mapping[str, Any], wanted: type[Any], path: str) -> Any:
    """Return (value, []) or (None, its problems)."""
    try:
        return made.structure(table, wanted), []
    except Exception as error:
        problems = collect(error, path)
        if not problems:
            raise
        return None, problems


def decode_sim(made: cattrs.Converter, table: object) -> tuple[SimTable, list[Problem]]:
    """Read `[sim]`, and its problems."""
    if not isinstance(table, Mapping):
        return SimTable(), [Problem("sim", f"found {describe_value(table)}; accepted: a table")]
    sim, problems = SimTable(), []
    for key, value in table.items():
        found, wrong = _structured(made, {key: value}, SimTable, "sim")
        sim = evolve(sim, **{key: getattr(found, key)}) if found else sim
        problems += wrong
    if sim.name is not None and not (sim.name.strip() and sim.name.isprintable()):
        problems.append(Problem("sim.name", f"found {sim.name!r}; accepted: a printable name"))
    return sim, problems


@frozen
class Decoded:
    """A `[[step]]`: `step` has what could be read of it, None if that is too little; `whole` if all could."""

    step: Step | None
    problems: list[Problem]
    whole: bool = False


def decode_step(made: cattrs.Converter, table: object, path: str) -> Decoded:
    """Return the step in a table, with everything that is wrong with it by itself."""
    if not isinstance(table, Mapping):
        return Decoded(None, [Problem(path, f"found {describe_value(table)}; accepted: a table")])
    missing = [not_yet(f"{path}.{key}") for key in table if key in _KEYS_NOT_YET]
    kind, problem = _kind_of(table, path, quiet=bool(missing))
    if kind is None:
        return Decoded(None, [*missing, *problem])
    own = {key: value for key, value in table.items() if key not in {"action", *_KEYS_NOT_YET}}
    parser = own.get("parser")
    if isinstance(parser, str) and parser in _PARSERS_NOT_YET:
        missing.append(not_yet(f"{path}.parser", repr(parser)))
        del own["parser"]
    step, problems = _structured(made, own, kind, path)
    if step is None:
        return Decoded(_readable_part(made, own, kind), [*missing, *problems])
    problems += [_below(path, problem) for problem in step.problems()]
    return Decoded(step, [*missing, *problems], whole=not missing)


def _readable_part(made: cattrs.Converter, table: Mapping[str, Any], kind: type[Step]) -> Step | None:
    """Return the step without the keys that cannot be read, so that its references can be checked."""
    required = {"cmd": ["?"]} if issubclass(kind, CommandStep) else {}
    problems = _structured(made, {**required, **table}, kind, "")[1]
    wrong = {re.split(r"[.\[]", problem.path)[0] for problem in problems}
    rest = {key: value for key, value in table.items() if key not in wrong}
    step: Step | None = _structured(made, {**required, **rest}, kind, "")[0]
    return step


def _below(path: str, problem: Problem) -> Problem:
    return Problem(f"{path}.{problem.path}" if problem.path else path, problem.message)


def _kind_of(table: Mapping[str, Any], path: str, *, quiet: bool) -> tuple[type[Step] | None, list[Problem]]:
    """Return the kind of a step; `quiet` if there is no action for a known reason."""
    action = table.get("action", "run" if "cmd" in table else None)
    if action is None:
        accepted = "accepted: `action`, or `cmd` for a run"
        return None, [] if quiet else [Problem(path, f"a step without an action; {accepted}")]
    if isinstance(action, str) and action in ACTIONS:
        return ACTIONS[action], []
    where = f"{path}.action"
    if isinstance(action, str) and action in _ACTIONS_NOT_YET:
        return None, [not_yet(where, repr(action))]
    hint = did_you_mean(action, ACTIONS) if isinstance(action, str) else ""
    known = ", ".join(map(repr, ACTIONS))
    return None, [Problem(where, f"found {describe_value(action)}; accepted: {known}{hint}")]
