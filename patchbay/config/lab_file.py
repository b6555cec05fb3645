"""Lab files: TOML -> LabSpec. What the parts of a lab say of each other is checked in `addressing`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cattrs
from attrs import field, frozen

from patchbay.config.converter import collect, describe_value, make_converter, structure
from patchbay.errors import Problem, SpecError
from patchbay.model.lab import DeviceSpec, IfaceSpec, LabSpec, RegionSpec, RouterSpec

__all__ = ["TOPOLOGY_KEYS", "LabFile", "lab_spec", "load_lab", "read_toml"]

MOST_DEVICES = 10_000


@frozen
class _IfaceTable:
    gateway: str


@frozen
class _DeviceTable:
    """`[device.NAME]`: keys of its own beside one table for each interface."""

    count: int | None = None
    default_via: str | None = None
    mtu: int | None = None


@frozen
class _RegionTable:
    """`[region.NAME]`."""


@frozen
class LabFile:
    """A topology as a TOML file writes it down."""

    router: tuple[RouterSpec, ...] = ()
    device: dict[str, Any] = field(factory=dict)
    region: dict[str, Any] = field(factory=dict)


TOPOLOGY_KEYS = frozenset({"router", "device", "region", "region-link"})


def read_toml(path: Path) -> dict[str, Any]:
    """The file's table, or a `SpecError` that says why there is none."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError([Problem("", f"cannot be read: {error.strerror}")], str(path)) from None
    try:
        table = tomllib.loads(raw.decode())
    except UnicodeDecodeError:
        raise SpecError([Problem("", "is not a text file; accepted: TOML in UTF-8")], str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError([Problem("", f"is not TOML: {error}")], str(path)) from None
    if not table:
        raise SpecError([Problem("", "is empty; accepted: at least one [[router]]")], str(path))
    return table


def load_lab(source: Path | Mapping[str, Any]) -> LabSpec:
    """The lab in a TOML file, or in a dict of the same shape."""
    if isinstance(source, Mapping):
        return lab_spec(source)
    return lab_spec(read_toml(source), str(source))


def lab_spec(table: Mapping[str, Any], source: str | None = None) -> LabSpec:
    """The `LabSpec` that a TOML table describes; a `SpecError` holds every problem of it."""
    converter = make_converter()
    problems: list[Problem] = []
    kept: dict[str, Any] = {}
    for part, read in (("router", _routers), ("device", _devices), ("region", _regions)):
        try:
            kept[part] = read(converter, table.get(part))
        except SpecError as error:
            problems += error.problems
    unknown = {key: None for key in table if key not in ("router", "device", "region")}
    try:
        structure(converter, unknown, LabFile)
    except SpecError as error:
        problems += error.problems
    if problems:
        raise SpecError(problems, source)
    return LabSpec(regions=kept["region"], routers=kept["router"], devices=kept["device"])


def _routers(converter: cattrs.Converter, value: object) -> tuple[RouterSpec, ...]:
    return structure(converter, {"router": value or ()}, LabFile).router


def _tables(value: object, part: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SpecError([Problem(part, f"found {describe_value(value)}; accepted: a table, [{part}.NAME]")])
    return value


def _regions(converter: cattrs.Converter, value: object) -> tuple[RegionSpec, ...]:
    regions, problems = [], []
    for name, table in _tables(value, "region").items():
        try:
            converter.structure(table, _RegionTable)
            regions.append(RegionSpec(name))
        except Exception as error:
            problems += collect(error, f"region.{name}") or _reraise(error)
    if problems:
        raise SpecError(problems)
    return tuple(regions)


def _devices(converter: cattrs.Converter, value: object) -> tuple[DeviceSpec, ...]:
    devices: list[DeviceSpec] = []
    problems: list[Problem] = []
    for name, table in _tables(value, "device").items():
        try:
            devices += _device(converter, name, table)
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return tuple(devices)


def _device(converter: cattrs.Converter, name: str, table: object) -> list[DeviceSpec]:
    path = f"device.{name}"
    if not isinstance(table, Mapping):
        raise SpecError([Problem(path, f"found {describe_value(table)}; accepted: a table")])
    problems: list[Problem] = []
    ifaces: dict[str, IfaceSpec] = {}
    own = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    for iface, value in table.items():
        if isinstance(value, Mapping):
            try:
                ifaces[iface] = IfaceSpec(converter.structure(value, _IfaceTable).gateway)
            except Exception as error:
                problems += collect(error, f"{path}.{iface}") or _reraise(error)
    traits = _DeviceTable()
    try:
        traits = converter.structure(own, _DeviceTable)
        _check_count(traits.count)
    except Exception as error:
        problems += collect(error, path) or _reraise(error)
    if problems:
        raise SpecError(problems)
    names = [name] if traits.count is None else [f"{name}-{number}" for number in range(traits.count)]
    return [DeviceSpec(each, ifaces, traits.default_via, traits.mtu) for each in names]


def _check_count(count: int | None) -> None:
    if count is not None and not 1 <= count <= MOST_DEVICES:
        raise SpecError([Problem("count", f"found {count}; accepted: 1 to {MOST_DEVICES}")])


def _reraise(error: Exception) -> list[Problem]:
    raise error
