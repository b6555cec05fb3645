"""LabSpec -> Layout: gives out every name, MAC and address. The same input always gets the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from patchbay.config.draft import Draft
from patchbay.errors import AllocationError, Problem, SpecError
from patchbay.layout import pools
from patchbay.layout.blocks import with_blocks
from patchbay.layout.builder import Builder
from patchbay.layout.check import check, device_path, in_build_order
from patchbay.layout.layout import (
    LAN,
    Allocations,
    LanLayout,
    Layout,
    Network,
    RouterKind,
    RouterLayout,
    WireKey,
)
from patchbay.layout.wires import refreshed, with_conditions
from patchbay.model.lab import Addresses, LabSpec
from patchbay.model.link import PERFECT, LinkCondition, merged
from patchbay.model.names import NsName

__all__ = ["empty_layout", "extend", "lay_out"]


def empty_layout(addresses: Addresses = Addresses.GLOBAL) -> Layout:
    """Return the layout of a lab with nothing in it but the exchange."""
    ns = NsName("ix")
    exchange = pools.PUBLIC_PLANS[addresses].exchange
    ix = RouterLayout(
        name="ix",
        kind=RouterKind.IX,
        ns=ns,
        lan=LanLayout(LAN, pools.mac_of("ix", LAN), exchange),
        domains={4: ns, 6: ns},
        networks=tuple(address.network for address in exchange),
    )
    return Layout(
        forwarders={ix.key: ix},
        devices={},
        addresses=addresses,
        allocations=Allocations(
            ns_names=frozenset({ns}),
            macs=frozenset({ix.lan.mac}),
        ),
    )


def extend(layout: Layout, added: LabSpec) -> Layout:
    """Return the layout with `added` in it. Raises `SpecError` with every problem, or `AllocationError`."""
    return _extended(layout, Draft(added))


def lay_out(draft: Draft) -> Layout:
    """Return the layout of a whole lab file. Raises `SpecError` with all problems, or `AllocationError`."""
    return _extended(empty_layout(draft.spec.addresses or Addresses.GLOBAL), draft)


def _extended(layout: Layout, draft: Draft) -> Layout:
    unread = {problem.path for problem in draft.problems}
    found = [problem for problem in check(layout, draft.spec) if unread.isdisjoint(_parts(problem.path))]
    problems = [*draft.problems, *found]
    builder = Builder(layout, _named_networks(draft.spec))
    try:
        _add_sound(builder, draft.spec, problems)
    except AllocationError:
        if not problems:
            raise
    problems += builder.problems
    if problems:
        raise SpecError(list(dict.fromkeys(problems)), draft.source)
    return with_blocks(refreshed(_conditioned(builder.finish(), draft.spec)))


def _conditioned(layout: Layout, added: LabSpec) -> Layout:
    """Return the layout with the conditions of what was added."""
    given: dict[WireKey, LinkCondition] = {}
    for router in added.routers:
        if router.downlink is not None:
            given["downlink", router.name] = router.downlink
    for device in added.devices:
        for name, iface in device.ifaces.items():
            if iface.link is not None:
                given["link", device.name, name] = iface.link
    for link in added.region_links:
        given["regions", link.a, link.b] = link.condition
    return with_conditions(layout, {key: merged(PERFECT, condition) for key, condition in given.items()})


def _named_networks(added: LabSpec) -> Iterable[Network]:
    given = (cidr for r in added.routers for cidr in (r.downstream_cidr, r.downstream_cidr_v6))
    return (network for network in given if network is not None)


def _add_sound(builder: Builder, added: LabSpec, problems: Sequence[Problem]) -> None:
    """Add what has no problem so far, so that problems of this stage are reported with the others."""
    bad = {part for problem in problems for part in _parts(problem.path)}
    for region in added.regions:
        if f"region.{region.name}" not in bad:
            builder.add_region(region.name)
    paths = {f"router[{index}]": router for index, router in enumerate(added.routers)}
    path_of = {router.name: path for path, router in paths.items() if path not in bad}
    for router in in_build_order(paths[path] for path in path_of.values()):
        builder.add_router(router, path_of[router.name])
    for device in added.devices:
        if device_path(device) not in bad:
            builder.add_device(device)


def _parts(path: str) -> Iterable[str]:
    """Return the beginnings of a path: `a.b.c` -> `a`, `a.b`, `a.b.c`."""
    return (path[:end] for end in range(1, len(path) + 1) if path[end : end + 1] in (".", ""))
