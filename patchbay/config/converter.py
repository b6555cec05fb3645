"""A cattrs converter that coerces nothing, and reports every problem of an input with its path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import (
    BaseValidationError,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
)
from cattrs.gen import make_dict_structure_fn

from patchbay.config.link import accept_links
from patchbay.config.policy import accept_policies
from patchbay.errors import Problem, SpecError, did_you_mean

__all__ = [
    "Unacceptable",
    "collect",
    "describe_value",
    "make_converter",
    "shared_converter",
    "structure",
    "unknown_key",
]

T = TypeVar("T")

# Keys of parts of patchbay that do not exist yet: the message says so, instead of "unknown key".
NOT_YET = frozenset(
    {
        "ra_enabled",
        "ra_interval_secs",
        "ra_lifetime_secs",
    }
)

NOT_YET_VALUES: Mapping[str, tuple[str, ...]] = {
    "RouterPreset": ("mobile-v6", "isp-v6"),
    "NatV6": ("nptv6", "masquerade", "nat64"),
}

_TOML_NAMES: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "a table",
}


class Unacceptable(ValueError):
    """A value that is not accepted here; the text says what was found and what is accepted."""


def describe_value(value: object) -> str:
    """Return `value` as the user wrote it, with its kind unless that is plain."""
    kind = _TOML_NAMES.get(type(value), type(value).__name__)
    if isinstance(value, dict | list):
        return kind
    return f"{value!r}" if isinstance(value, str) else f"{kind} ({value})"


def _exactly(wanted: type, accepted: str) -> Callable[[object, object], Any]:
    def hook(value: object, _: object) -> Any:
        if type(value) is not wanted:
            raise Unacceptable(f"found {describe_value(value)}; accepted: {accepted}")
        return value

    return hook


def _number(value: object, _: object) -> float:
    if type(value) not in (int, float):
        raise Unacceptable(f"found {describe_value(value)}; accepted: a number")
    return float(value)  # type: ignore[arg-type]


def _text(value: object, wanted: type[str]) -> str:
    # cattrs finds the hook of a StrEnum by its class, which is a str.
    if issubclass(wanted, StrEnum):
        return _enum(value, wanted)
    if type(value) is not str:
        raise Unacceptable(f"found {describe_value(value)}; accepted: a string")
    return value


def _enum(value: object, wanted: type[StrEnum]) -> StrEnum:
    names = [member.value for member in wanted]
    if value in NOT_YET_VALUES.get(wanted.__name__, ()):
        raise Unacceptable(f"{value!r} is not available in this version of patchbay")
    if not isinstance(value, str) or value not in names:
        hint = did_you_mean(value, names) if isinstance(value, str) else ""
        raise Unacceptable(f"found {describe_value(value)}; accepted: {', '.join(map(repr, names))}{hint}")
    return wanted(value)


def _network(value: object, wanted: type[IPv4Network] | type[IPv6Network]) -> IPv4Network | IPv6Network:
    if isinstance(value, wanted):
        return value
    example = "'10.7.0.0/16'" if wanted is IPv4Network else "'fd00:7::/48'"
    if not isinstance(value, str):
        raise Unacceptable(f"found {describe_value(value)}; accepted: a network such as {example}")
    try:
        return wanted(value)
    except ValueError as error:
        raise Unacceptable(f"found {value!r} ({error}); accepted: a network such as {example}") from None


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _tuple_factory(wanted: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    item_type = get_args(wanted)[0]

    def hook(value: object, _: object) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise Unacceptable(f"found {describe_value(value)}; accepted: an array")
        items, errors = [], []
        for index, item in enumerate(value):
            try:
                items.append(converter.structure(item, item_type))
            except Exception as error:  # collected, and raised together
                error.add_note(cattrs.IterableValidationNote(f"item {index}", index, item_type))
                errors.append(error)
        if errors:
            raise IterableValidationError("array", errors, wanted)  # pyright: ignore[reportCallIssue]
        return tuple(items)

    return hook


def _table_factory(wanted: type, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    structure_fields: Callable[..., Any] = make_dict_structure_fn(
        wanted,
        converter,
        _cattrs_forbid_extra_keys=True,
        _cattrs_detailed_validation=True,
        _cattrs_use_alias=True,
    )

    def hook(value: object, kind: object) -> Any:
        if isinstance(value, wanted):
            return value
        if not isinstance(value, Mapping):
            raise Unacceptable(f"found {describe_value(value)}; accepted: a table")
        return structure_fields(value, kind)

    return hook


def _is_dict(kind: Any) -> bool:
    return get_origin(kind) is dict


def _names_factory(wanted: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    item_type = get_args(wanted)[1]

    def hook(value: object, _: object) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise Unacceptable(f"found {describe_value(value)}; accepted: a table")
        items, errors = {}, []
        for name, item in value.items():
            try:
                items[name] = item if item_type is Any else converter.structure(item, item_type)
            except Exception as error:  # collected, and raised together
                error.add_note(cattrs.AttributeValidationNote(f"key {name}", name, item_type))
                errors.append(error)
        if errors:
            raise ClassValidationError("table", errors, dict)  # pyright: ignore[reportCallIssue]
        return items

    return hook


def make_converter(folder: Path | None = None) -> cattrs.Converter:
    """Return a converter for TOML: exact types, no unknown keys, every error kept.

    Files that values name are looked for in `folder` (default: the present one).
    """
    converter = cattrs.Converter(detailed_validation=True, forbid_extra_keys=True)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(int, _exactly(int, "an integer"))
    converter.register_structure_hook(bool, _exactly(bool, "true or false"))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(IPv4Network, _network)
    converter.register_structure_hook(IPv6Network, _network)
    converter.register_structure_hook_factory(_is_tuple, _tuple_factory)
    converter.register_structure_hook_factory(_is_dict, _names_factory)
    converter.register_structure_hook_factory(attrs.has, _table_factory)
    accept_policies(converter, unknown_key, _refusal)
    accept_links(converter, lambda wanted: _table_factory(wanted, converter), folder or Path(), _refusal)
    return converter


@lru_cache(maxsize=16)
def shared_converter(folder: Path | None = None) -> cattrs.Converter:
    """Return a converter that all callers share, because making one takes milliseconds. Register no hook."""
    return make_converter(folder)


def _refusal(value: object, accepted: str) -> Unacceptable:
    return Unacceptable(f"found {describe_value(value)}; accepted: {accepted}")


def structure(converter: cattrs.Converter, value: object, wanted: type[T], source: str | None = None) -> T:
    """Return `value` as a `wanted`. Raises `SpecError` with every problem."""
    try:
        return converter.structure(value, wanted)
    except Exception as error:
        problems = collect(error)
        if not problems:
            raise
        raise SpecError(problems, source) from None


def collect(error: BaseException, path: str = "") -> list[Problem]:
    """Return the problems in an error of the converter; empty if it is some other error."""
    if isinstance(error, ClassValidationError):
        return _collect_class(error, path)
    if isinstance(error, BaseValidationError):
        return [problem for inner in error.exceptions for problem in collect(inner, _path_of(inner, path))]
    if isinstance(error, SpecError):
        return [
            Problem(f"{path}.{p.path}" if path and p.path else path or p.path, p.message)
            for p in error.problems
        ]
    if isinstance(error, Unacceptable):
        return [Problem(path, str(error))]
    return []


def _path_of(error: BaseException, path: str) -> str:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, cattrs.IterableValidationNote):
            return f"{path}[{note.index}]"
        if isinstance(note, cattrs.AttributeValidationNote):
            return f"{path}.{note.name}" if path else note.name
    return path


def _collect_class(error: ClassValidationError, path: str) -> list[Problem]:
    problems = []
    for inner in error.exceptions:
        here = _path_of(inner, path)
        if isinstance(inner, ForbiddenExtraKeysError):
            problems += _unknown_keys(inner, path)
        elif isinstance(inner, KeyError):
            problems.append(Problem(here, "is missing, and required"))
        else:
            problems += collect(inner, here)
    return problems


def _unknown_keys(error: ForbiddenExtraKeysError, path: str) -> list[Problem]:
    known = [field.alias for field in attrs.fields(error.cl)]
    return [unknown_key(key, known, path) for key in sorted(error.extra_fields)]


def unknown_key(key: str, known: list[str], path: str) -> Problem:
    """Return the problem of a key that is not accepted at `path`."""
    where = f"{path}.{key}" if path else key
    if key in NOT_YET:
        return Problem(where, "is not available in this version of patchbay")
    accepted = ", ".join(known) or "none"
    return Problem(where, f"unknown key; accepted: {accepted}{did_you_mean(key, known)}")
