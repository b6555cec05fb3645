"""NATs and firewalls as users write them: a preset's name, a table, or a value of `model`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

import attrs
import cattrs

from patchbay.errors import Problem, SpecError, did_you_mean
from patchbay.model.firewall import Firewall, FirewallConfig, firewall_named
from patchbay.model.nat import Nat, NatConfig, named

__all__ = ["accept_policies"]

Refusal = Callable[[object, str], Exception]
Hook = Callable[[object, Any], Any]
PresetT = TypeVar("PresetT", bound=StrEnum)


def accept_policies(
    converter: cattrs.Converter,
    unknown_key: Callable[[str, list[str], str], Problem],
    refuse: Refusal,
) -> None:
    """Teach `converter` the types of `model.nat` and `model.firewall`, which check themselves.

    `unknown_key` makes the problem of a key that is not accepted, `refuse` the error of a value of another
    kind.
    """

    def nat_table(value: object, _: object) -> NatConfig:
        return _from_table(value, NatConfig, unknown_key)  # type: ignore[no-any-return]

    def firewall_table(value: object, _: object) -> FirewallConfig:
        return _from_table(value, FirewallConfig, unknown_key)  # type: ignore[no-any-return]

    def nat(value: object, _: object) -> Nat | NatConfig | None:
        example = "{ filtering = 'endpoint-independent' }"
        return named(_preset_or(value, Nat, NatConfig, nat_table, refuse, example))

    def firewall(value: object, _: object) -> Firewall | FirewallConfig | None:
        example = "{ outbound_udp = [53] }"
        return firewall_named(_preset_or(value, Firewall, FirewallConfig, firewall_table, refuse, example))

    _register(converter, Nat | NatConfig, nat)
    _register(converter, Firewall | FirewallConfig, firewall)


def _register(converter: cattrs.Converter, wanted: Any, hook: Hook) -> None:
    optional = wanted | None
    converter.register_structure_hook_func(lambda kind: kind == wanted, hook)
    converter.register_structure_hook_func(
        lambda kind: kind == optional, lambda value, kind: None if value is None else hook(value, kind)
    )


def _from_table(
    value: object, wanted: type[Any], unknown_key: Callable[[str, list[str], str], Problem]
) -> Any:
    """Return a table's fields by their names; everything that is wrong with it at once."""
    if isinstance(value, wanted):
        return value
    table: dict[str, Any] = {str(key): item for key, item in dict(value).items()}  # type: ignore[call-overload]
    known = list(attrs.fields_dict(wanted))
    problems = [unknown_key(key, known, "") for key in sorted(table.keys() - set(known))]
    try:
        found = wanted(**{key: item for key, item in table.items() if key in known})
        if not problems:
            return found
    except SpecError as error:
        problems = [*error.problems, *problems]
    raise SpecError(problems)


def _preset_or(
    value: object, presets: type[PresetT], config: type, table: Hook, refuse: Refusal, example: str
) -> Any:
    names: Iterable[str] = [preset.value for preset in presets]
    if isinstance(value, str) and value in names:
        return presets(value)
    if not isinstance(value, Mapping | config):
        hint = did_you_mean(value, names) if isinstance(value, str) else ""
        raise refuse(value, f"{', '.join(map(repr, names))}, or a table such as {example}{hint}")
    return table(value, config)
