"""Lab files: TOML -> LabSpec. What the parts of a lab say of each other is checked in `layout`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import cattrs
import tomli
from attrs import evolve, field, frozen

from patchbay.config.converter import collect, describe_value, shared_converter, unknown_key
from patchbay.config.draft import Draft
from patchbay.config.regions import with_named_regions
from patchbay.errors import Problem, SpecError
from patchbay.model.lab import (
    Addresses,
    DeviceSpec,
    IfaceSpec,
    LabSpec,
    RegionLinkSpec,
    RegionSpec,
    RouterSpec,
    links_by_latency,
)
from patchbay.model.link import Impairment, LinkCondition

__all__ = ["TOPOLOGY_KEYS", "draft_lab", "draft_part", "read_lab", "read_toml"]

MOST_DEVICES = 10_000

T = TypeVar("T")


@frozen
class _IfaceTable:
    """`[device.NAME.IFACE]`; `impair` is the older name of `link`."""

    gateway: str
    link: LinkCondition | None = None
    impair: LinkCondition | None = None


@frozen
class _DeviceTable:
    """`[device.NAME]`: keys of its own beside one table for each interface."""

    count: int | None = None
    default_via: str | None = None
    mtu: int | None = None
    private: tuple[str, ...] = ()
    stun: bool = False


_DEVICE_KEYS = frozenset(field.name for field in attrs.fields(_DeviceTable))


@frozen
class _LabTable:
    """The keys of the lab itself, at the top of a file."""

    addresses: Addresses | None = None


_LAB_KEYS = [field.name for field in attrs.fields(_LabTable)]


@frozen
class _RegionTable:
    """`[region.NAME]`; `latencies` are in ms, one way, to other regions."""

    latencies: dict[str, float] = field(factory=dict)


@frozen
class _RegionPair:
    """`[[region-link]]`: the two regions, beside the keys of a link condition."""

    a: str
    b: str


_PARTS = ["router", "device", "region", "region-link"]
_KEYS = [*_PARTS, *_LAB_KEYS]
TOPOLOGY_KEYS = frozenset(_KEYS)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the file's table, or a `SpecError` that says why there is none."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError([Problem("", f"cannot be read: {error.strerror}")], str(path)) from None
    try:
        table = tomli.loads(raw.decode())
    except UnicodeDecodeError:
        raise SpecError([Problem("", "is not a text file; accepted: TOML in UTF-8")], str(path)) from None
    except tomli.TOMLDecodeError as error:
        raise SpecError([Problem("", f"is not TOML: {error}")], str(path)) from None
    if not table:
        raise SpecError([Problem("", "is empty; accepted: at least one [[router]]")], str(path))
    return table


def read_lab(source: Path | Mapping[str, Any]) -> Draft:
    """Return the lab in a TOML file, or in a dict of the same shape, with what cannot be read of it."""
    if isinstance(source, Mapping):
        return draft_lab(source)
    return draft_lab(read_toml(source), str(source))


def draft_lab(table: Mapping[str, Any], source: str | None = None, folder: Path | None = None) -> Draft:
    """Return the whole lab in a TOML table, with the problems of the table.

    Files that the table names are looked for in `folder` (default: the folder of `source`). Regions come into
    being by being named.
    """
    return with_named_regions(draft_part(table, source, folder))


def draft_part(table: Mapping[str, Any], source: str | None = None, folder: Path | None = None) -> Draft:
    """Return what a TOML table adds to a lab that may have regions already."""
    reader = _Reader(folder or (Path(source).parent if source else None))
    spec = LabSpec(
        routers=reader.routers(table.get("router")),
        devices=reader.devices(table.get("device")),
        regions=reader.regions(table.get("region")),
        region_links=reader.region_links(table.get("region-link")),
        addresses=reader.addresses(table),
    )
    problems = [
        *reader.problems,
        *(unknown_key(key, _KEYS, "") for key in table if key not in _KEYS),
    ]
    # Nothing is held against a part that cannot be read at all.
    unreadable = {problem.path for problem in problems} & {*_PARTS}
    return Draft(LabSpec() if unreadable else spec, tuple(problems), source)


class _Reader:
    """Reads the parts of a lab. What has a problem is read without the keys that have it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.problems: list[Problem] = []
        self._converter: cattrs.Converter = shared_converter(folder)
        self._latencies: dict[str, dict[str, float]] = {}

    def routers(self, value: object) -> tuple[RouterSpec, ...]:
        return tuple(
            self._read(item, RouterSpec, f"router[{index}]", {"name": ""})
            for index, item in enumerate(self._array(value, "router"))
        )

    def regions(self, value: object) -> tuple[RegionSpec, ...]:
        for name, table in self._tables(value, "region").items():
            path = f"region.{name}"
            sound = self._latencies[name] = {}
            for other, ms in self._read(table, _RegionTable, path, {}).latencies.items():
                try:
                    Impairment(latency_ms=ms)
                    sound[other] = ms
                except SpecError as error:
                    where = f"{path}.latencies.{other}"
                    self.problems += [Problem(where, problem.message) for problem in error.problems]
        return tuple(RegionSpec(name) for name in self._latencies)

    def region_links(self, value: object) -> tuple[RegionLinkSpec, ...]:
        """Return the links of regions: `[region.NAME] latencies`, read before, with `[[region-link]]`."""
        links = links_by_latency(self._latencies)
        for index, item in enumerate(self._array(value, "region-link")):
            path = f"region-link[{index}]"
            table = item if isinstance(item, Mapping) else {}
            names = {key: value for key, value in table.items() if key in ("a", "b")}
            rest = {key: value for key, value in table.items() if key not in names}
            regions = self._read(names if table else item, _RegionPair, path, {"a": "", "b": ""})
            condition = self._read(rest, LinkCondition, path, {})
            given = RegionLinkSpec(regions.a, regions.b, condition, path)
            pair = frozenset((regions.a, regions.b))
            links[pair] = given.applied_to(links[pair]) if pair in links else given
        return tuple(links.values())

    def devices(self, value: object) -> tuple[DeviceSpec, ...]:
        tables = self._tables(value, "device")
        return tuple(device for name, table in tables.items() for device in self._device(name, table))

    def _device(self, name: str, value: object) -> list[DeviceSpec]:
        path = f"device.{name}"
        if not isinstance(value, Mapping):
            self._refuse(path, value, "a table")
            return []
        own, ifaces = {}, {}
        for key, item in value.items():
            # An array is what [[device.NAME.IFACE]] makes.
            if isinstance(item, Mapping) or (isinstance(item, list) and key not in _DEVICE_KEYS):
                table = self._read(item, _IfaceTable, f"{path}.{key}", {"gateway": ""})
                if table.link is not None and table.impair is not None:
                    self.problems.append(Problem(f"{path}.{key}.impair", "the older name of link; name one"))
                ifaces[key] = IfaceSpec(table.gateway, table.link or table.impair)
            else:
                own[key] = item
        traits = self._read(own, _DeviceTable, path, {})
        device = DeviceSpec(name, ifaces, traits.default_via, traits.mtu, traits.private, traits.stun)
        if traits.count is None:
            return [device]
        if not 1 <= traits.count <= MOST_DEVICES:
            self._refuse(f"{path}.count", traits.count, f"1 to {MOST_DEVICES}")
            return []
        return [evolve(device, name=f"{name}-{number}", counted_from=name) for number in range(traits.count)]

    def addresses(self, table: Mapping[str, Any]) -> Addresses | None:
        own = {key: value for key, value in table.items() if key in _LAB_KEYS}
        return self._read(own, _LabTable, "", {}).addresses

    def _array(self, value: object, part: str) -> Sequence[Any]:
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            self._refuse(part, value, f"an array of tables, [[{part}]]")
            return ()
        return value

    def _tables(self, value: object, part: str) -> Mapping[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self._refuse(part, value, f"a table, [{part}.NAME]")
            return {}
        return value

    def _read(self, value: object, wanted: type[T], path: str, blank: dict[str, Any]) -> T:
        """Return `value` as a `wanted`, with `blank` in place of what cannot be read."""
        try:
            return self._converter.structure(value, wanted)
        except Exception as error:
            found = collect(error, path)
            if not found:
                raise
        self.problems += found
        bad = [problem.path.removeprefix(f"{path}.") for problem in found]
        table = value if isinstance(value, Mapping) else {}
        sound = {
            key: item
            for key, item in table.items()
            if not any(place == key or place.startswith((f"{key}.", f"{key}[")) for place in bad)
        }
        return self._converter.structure({**blank, **sound}, wanted)

    def _refuse(self, path: str, value: object, accepted: str) -> None:
        self.problems.append(Problem(path, f"found {describe_value(value)}; accepted: {accepted}"))
