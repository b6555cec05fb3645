"""Regions come into being by being named in a file, unless a name looks like a slip of another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import takewhile

from attrs import evolve

from patchbay.config.draft import Draft
from patchbay.errors import Problem
from patchbay.model.lab import LabSpec, RegionSpec

__all__ = ["with_named_regions"]

# A slip in a name of two or three letters, such as "us" for "uk", is a name as well.
_SHORTEST = 4


def with_named_regions(draft: Draft) -> Draft:
    """Return the draft with a region for each name of one, and with problems of names that look misspelt."""
    places = list(_places(draft.spec))
    tables = {region.name for region in draft.spec.regions}
    times = Counter(name for _, name in places)
    new = [name for name in times if name not in tables]
    meant = {name: _meant(name, tables, times) for name in new}
    problems = tuple(
        Problem(
            path,
            f"found '{name}', which looks like '{meant[name]}'; "
            f"accepted: '{meant[name]}', or '{name}' with a table [region.{name}]",
        )
        for path, name in places
        if meant.get(name)
    )
    regions = (*draft.spec.regions, *map(RegionSpec, new))
    return evolve(draft, spec=evolve(draft.spec, regions=regions), problems=(*draft.problems, *problems))


def _places(spec: LabSpec) -> Iterator[tuple[str, str]]:
    """Yield (path, name) for every name of a region outside of its own table."""
    for index, router in enumerate(spec.routers):
        if router.region is not None:
            yield f"router[{index}].region", router.region
    for link in spec.region_links:
        own = link.path.startswith("region-link")
        for key, name in (("a", link.a), ("b", link.b)):
            if name:
                yield (f"{link.path}.{key}" if own else link.path), name


def _meant(name: str, tables: Iterable[str], times: Counter[str]) -> str | None:
    """Return the other name that `name` is a slip of: one with a table, or one that is named more often."""
    others = [*tables, *(other for other, count in times.most_common() if count > times[name])]
    return next((other for other in others if _is_slip(name, other)), None)


def _is_slip(name: str, other: str) -> bool:
    """Return True for names that differ in case, or in one letter that is missing, wrong, or out of order."""
    if name == other:
        return False
    if name.lower() == other.lower():
        return True
    start = _in_common(name, other)
    end = _in_common(name[start:][::-1], other[start:][::-1])
    a, b = name[start : len(name) - end], other[start : len(other) - end]
    if min(len(name), len(other)) < _SHORTEST or (a + b).isdigit():
        return False
    return max(len(a), len(b)) == 1 or (len(a) == 2 and a == b[::-1])


def _in_common(one: str, other: str) -> int:
    """Return how many letters two texts have in common from the beginning."""
    return len([*takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))])
