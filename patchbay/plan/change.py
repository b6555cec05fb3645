"""From one layout to another: every change of a lab, its building and its undoing, is this one function."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TypeVar

from attrs import evolve

from patchbay.layout.layout import LAN, Layout, RouterLayout, WireKey
from patchbay.model.names import IfName, NsName
from patchbay.plan.hosts import name_resources
from patchbay.plan.node import link_resources, node_resources
from patchbay.plan.plan import Plan, Stage, forgiving
from patchbay.plan.policy import policy_resources
from patchbay.plan.resources import Key, Phase, Resource, Table, difference
from patchbay.plan.view import View, view_of
from patchbay.plan.wires import region_wire, settle
from patchbay.tools.commands import CheckQdiscs, Command, Ip, Nft

__all__ = ["between"]

# This many nodes are made before their configuration starts beside the making of the next: enough to
# pay for starting `ip`, few enough to keep a second core busy from early on.
CHUNK = 48

# A part of a lab: ("node", namespace), ("links", namespace), ("policy", namespace), ("regions", one, other),
# or the names. What a part consists of is worked out where something in it may have changed.
Part = tuple[str, ...]
Parts = Mapping[Part, Mapping[Key, Resource]]
_NAMES: Part = ("names",)
_OF_NODE = ("node", "links", "policy")

KeyT = TypeVar("KeyT")


def between(old: Layout | None, new: Layout, *, undoing: bool = False) -> Plan:
    """Return what turns `old` into `new`; `old` None is the bare lab.

    `undoing`: the change from `new` to `old` has failed somewhere, so that any part of it may be there.
    """
    wires = _differing(old.wires if old else {}, new.wires)
    changed = _changed_parts(old, new, wires)
    before = _parts(view_of(old), changed) if old else {}
    after = _parts(view_of(new), changed)
    # A link of regions leads packets another way, so it has to wait where the regions are there already.
    kinds = _OF_NODE if old else (*_OF_NODE, "regions")
    had = {part[1] for part in before if part[0] == "node"}
    fresh = [part for part in after if part[0] in kinds and part not in before and part[1] not in had]
    step = _Step(before, after, undoing=undoing)
    plan = Plan(
        tuple(stage for stage in step.stages(fresh) if stage.make or stage.configure),
        tuple(dict.fromkeys([*settle(old, new, wires), *_lans_above(new, fresh)])),
    )
    return forgiving(plan) if undoing else plan


def _lans_above(layout: Layout, fresh: Iterable[Part]) -> list[tuple[NsName, IfName]]:
    made = {part[1] for part in fresh}
    nodes = (node for node in layout.nodes() if node.ns in made) if made else ()
    return sorted({(iface.router_ns, LAN) for node in nodes for iface in node.ifaces})


# -- which parts have changed


def _differing(old: Mapping[KeyT, object], new: Mapping[KeyT, object]) -> list[KeyT]:
    """Return the keys whose values are not the same; mostly they are one and the same object."""
    if old is new:
        return []
    keys = {**old, **new}
    return [key for key in keys if old.get(key) is not new.get(key) and old.get(key) != new.get(key)]


def _changed_parts(old: Layout | None, new: Layout, wires: Iterable[WireKey]) -> set[Part]:
    """Return the parts that have to be looked at."""
    layouts = (old, new) if old else (new,)
    if (
        old is None
        or view_of(old).quiet != view_of(new).quiet
        or (old.emulator is not new.emulator and old.wires)
    ):
        return {part for layout in layouts for part in _every_part(layout)}
    nodes = {*_differing(old.forwarders, new.forwarders), *_differing(old.devices, new.devices)}
    changed: set[Part] = {(kind, ns) for ns in _namespaces(layouts, nodes) for kind in _OF_NODE}
    changed |= {("policy", ns) for ns in _differing(old.policies, new.policies)}
    for key in wires:
        changed |= _parts_of_wire(layouts, key)
    return changed if old.names is new.names else {*changed, _NAMES}


def _every_part(layout: Layout) -> Iterator[Part]:
    for node in layout.nodes():
        yield from ((kind, node.ns) for kind in _OF_NODE)
    yield from (key for key in layout.wires if key[0] == "regions")
    yield _NAMES


def _namespaces(layouts: Iterable[Layout], names: Iterable[str]) -> set[NsName]:
    """Return the namespaces of nodes by their keys in a layout."""
    found = (layout.devices.get(name) or layout.forwarders.get(name) for layout in layouts for name in names)
    return {node.ns for node in found if node}


def _parts_of_wire(layouts: Sequence[Layout], key: WireKey) -> set[Part]:
    if key[0] == "regions":
        return {key}
    if key[0] == "link":
        return {("links", ns) for ns in _namespaces(layouts, [key[1]])}
    routers = _namespaces(layouts, [f"router:{key[1]}"])
    below = (
        node.ns
        for layout in layouts
        for node in layout.nodes()
        if any(iface.router_ns in routers for iface in node.ifaces)
    )
    return {("links", ns) for ns in (*routers, *below)}


def _parts(view: View, changed: set[Part]) -> Parts:
    """Return the resources of these parts, in the order in which they can be made."""
    layout = view.layout
    found: dict[Part, dict[Key, Resource]] = {}
    for node in layout.nodes():
        if ("node", node.ns) in changed:
            found["node", node.ns] = dict(node_resources(view, node))
        if ("links", node.ns) in changed:
            found["links", node.ns] = dict(link_resources(view, node))
        if isinstance(node, RouterLayout) and ("policy", node.ns) in changed and node.ns in layout.policies:
            found["policy", node.ns] = dict(policy_resources(node, layout.policies[node.ns]))
    for key, wire in layout.wires.items():
        if key[0] == "regions" and key in changed:
            found[key] = dict(region_wire(view, wire))
    if _NAMES in changed:
        found[_NAMES] = dict(name_resources(layout))
    return found


# -- in which order


def _together(parts: Iterable[Mapping[Key, Resource]]) -> Table:
    return {key: resource for part in parts for key, resource in part.items()}


class _Step:
    """The difference of two sets of parts, put in order."""

    def __init__(self, before: Parts, after: Parts, *, undoing: bool) -> None:
        self._after = after
        self._new = _together(after.values())
        self._difference = difference(_together(before.values()), self._new, undoing=undoing)
        # Parts that go as a whole: nothing passes them any more, so nothing of them has to wait.
        self._leaving = {key for name, part in before.items() if name not in after for key in part}

    def stages(self, fresh: Sequence[Part]) -> Iterator[Stage]:
        """Return the stages of the plan.

        Old resources are deleted first, unless packets have to be led another way before. Then new
        resources are made, and the parts that are `fresh` are configured beside that. Then follows what
        acts on packets, then the way of packets, and last the rules that name interfaces and addresses.
        """
        unmade = self._difference.unmade
        early = {key: it for key, it in unmade.items() if self._goes_early(key, it)}
        later = [it for key, it in unmade.items() if key not in early]
        staying = [part for part in self._after if part not in fresh]
        yield Stage(make=_commands(it.unmake for it in early.values() if it.process))
        yield Stage(make=_from_last(it for it in early.values() if not it.process))
        yield Stage(make=self._made((part for part in staying if not _is_link(part)), *_MADE))
        for chunk in _chunks(fresh):
            yield Stage(self._made(chunk, *_MADE), self._made(chunk, Phase.CONFIGURE, Phase.RULES))
        yield Stage(make=self._made(filter(_is_link, staying), *_MADE))
        yield from self._led_another_way(staying, later)
        ruled = _unmakes(later, Phase.RULES)
        rules = (*ruled, *self._made(staying, Phase.RULES))
        yield Stage(configure=tuple(sorted(rules, key=_by_tool)), barrier=True)
        yield Stage(make=(*self._made(self._after, Phase.NAMES), *_unmakes(later, Phase.NAMES)))

    def _led_another_way(self, staying: Sequence[Part], later: Sequence[Resource]) -> Iterator[Stage]:
        """Lead packets another way, in steps that each begin when the last is done whole.

        The steps: what acts on packets; the end of what acted before; the new way, and the end of the old
        way.
        """
        acting = (*_unmakes(later, Phase.ACT, process=False), *self._made(self._after, Phase.ACT))
        yield Stage(
            configure=(
                *self._made(staying, Phase.CONFIGURE),
                *sorted(acting, key=_by_tool),
                *self._checks(),
            ),
            barrier=True,
        )
        yield Stage(make=_unmakes(later, Phase.ACT, process=True), barrier=True)
        lead = (*_unmakes(later, Phase.LEAD), *self._made(self._after, Phase.LEAD))
        yield Stage(configure=(*lead, *_commands(it.unmake for it in later if it.late)), barrier=True)

    def _goes_early(self, key: Key, resource: Resource) -> bool:
        if key in self._leaving:
            return True
        if resource.process:
            # Before the interfaces that it works on, unless these wait for it themselves.
            return any(
                parent in self._difference.gone and not self._is_late(parent) for parent in resource.within
            )
        return resource.phase <= Phase.CONFIGURE and not resource.late

    def _is_late(self, key: Key) -> bool:
        resource = self._difference.unmade.get(key)
        return resource is not None and resource.late and key not in self._leaving

    def _made(self, parts: Iterable[Part], *phases: Phase) -> tuple[Command, ...]:
        """Return what makes the resources of these parts in these phases."""
        made, chosen = self._difference.made, [*parts]
        return tuple(
            command
            for phase in phases
            for part in chosen
            for key, resource in self._after[part].items()
            if resource.phase is phase and key in made
            for command in made[key]
        )

    def _checks(self) -> Iterator[CheckQdiscs]:
        """Read back the qdiscs that are made, those of a namespace together."""
        found: dict[NsName, CheckQdiscs] = {}
        for key in self._difference.made:
            if check := self._new[key].check:
                known = found.get(check.ns, check)
                found[check.ns] = evolve(check, wanted={**known.wanted, **check.wanted})
        yield from found.values()


# What is made one after another; the rest is configured namespace by namespace.
_MADE = (Phase.NAMESPACE, Phase.SETTING, Phase.BRIDGE, Phase.LINK)


def _chunks(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Cut a list of parts so that those of a node stay together."""
    nodes = [list(group) for _, group in groupby(parts, key=lambda part: part[1])]
    for start in range(0, len(nodes), CHUNK):
        yield [part for node in nodes[start : start + CHUNK] for part in node]


def _is_link(part: Part) -> bool:
    """Return True for a link of regions, which is made after new regions."""
    return part[0] == "regions"


def _commands(groups: Iterable[tuple[Command, ...]]) -> tuple[Command, ...]:
    return tuple(command for group in groups for command in group)


def _unmakes(
    resources: Iterable[Resource], phase: Phase, *, process: bool | None = None
) -> tuple[Command, ...]:
    """Return what unmakes the resources of a phase that are not `late`: processes alone, others, or all."""
    return _commands(
        it.unmake for it in resources if it.phase is phase and not it.late and process in (None, it.process)
    )


def _from_last(resources: Iterable[Resource]) -> tuple[Command, ...]:
    """Return the commands that unmake these: the newest first, and namespaces last.

    Those of one namespace come together, for one `ip` each.
    """
    commands = _commands(resource.unmake for resource in [*resources][::-1])
    inside = sorted((command for command in commands if command.ns), key=lambda command: command.ns or "")
    return (*inside, *(command for command in commands if not command.ns))


def _by_tool(command: Command) -> int:
    """Addresses before the rules that name them, rules before what needs them; each kind in its order."""
    return 0 if isinstance(command, Ip) else 1 if isinstance(command, Nft) else 2
