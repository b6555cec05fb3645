"""From one layout to another: every change of a lab, its building and its undoing, is this one function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from patchbay.layout.layout import LAN, Layout, NodeLayout
from patchbay.model.names import NsName
from patchbay.plan import node as nodes
from patchbay.plan import wires
from patchbay.plan.hosts import name_commands
from patchbay.plan.plan import Plan, Stage
from patchbay.plan.policy import endings, policy_stages
from patchbay.tools.commands import Command

__all__ = ["between"]

# So many nodes are made before their configuration starts beside the making of the next: enough to
# pay for starting `ip`, few enough to keep a second core busy from early on.
CHUNK = 48

# Above this many nodes the neighbour entries are installed: the kernel has room for 1024 in all
# namespaces together (net.ipv4.neigh.default.gc_thresh3), about four for each node.
NODES_WITH_ARP = 200


def between(old: Layout | None, new: Layout) -> Plan:
    """What turns `old` into `new`; `old` None is the bare lab."""
    before = {node.ns: node for node in old.nodes()} if old else {}
    after = {node.ns: node for node in new.nodes()}
    gone = [node for ns, node in before.items() if not _same(after.get(ns), node)]
    added = [node for ns, node in after.items() if not _same(before.get(ns), node)]
    quiet, was_quiet = len(after) > NODES_WITH_ARP, len(before) > NODES_WITH_ARP
    leaving = {node.ns for node in gone}
    stages = [
        *wires.endings(old, leaving),
        *endings(old, leaving),
        *_removals(gone, set(after), quiet=was_quiet),
        *_additions(new, added, quiet=quiet),
    ]
    if quiet != was_quiet:
        kept = [node for node in after.values() if _same(before.get(node.ns), node)]
        change = nodes.neighbours if quiet else nodes.forget_neighbours
        stages.append(Stage(configure=tuple(command for node in kept for command in change(node))))
    anew = leaving & set(after)
    stages += wires.stages(old, new, leaving - anew, anew, was_quiet=was_quiet, quiet=quiet)
    stages += policy_stages(old, new, {node.ns for node in added})
    stages.append(Stage(make=tuple(name_commands(old, new))))
    touched = {(iface.router_ns, LAN) for node in added for iface in node.ifaces}
    return Plan(
        tuple(stage for stage in stages if stage.make or stage.configure),
        tuple(dict.fromkeys([*wires.settle(old, new), *sorted(touched)])),
    )


def _same(one: NodeLayout | None, other: NodeLayout) -> bool:
    # Mostly one and the same object, which is quicker to see.
    return one is other or one == other


def _removals(gone: Sequence[NodeLayout], staying: set[NsName], *, quiet: bool) -> Iterator[Stage]:
    """The newest first, as each may hang on an older one. Under `make`, so that all of it is done
    before anything is built: what comes next may want the same names.
    """
    removals = [nodes.remove(node, quiet=quiet) for node in reversed(gone)]
    outside = [c for commands, _ in removals for c in commands if c.ns in staying]
    if removals:
        # Those of one namespace together, for one `ip` each.
        outside.sort(key=lambda command: command.ns or "")
        yield Stage(make=(*outside, *(end for _, end in removals)))


def _additions(layout: Layout, added: Sequence[NodeLayout], *, quiet: bool) -> Iterator[Stage]:
    for start in range(0, len(added), CHUNK):
        chunk = added[start : start + CHUNK]
        built = [nodes.build(node, layout.policies.get(node.ns), quiet=quiet) for node in chunk]
        make: list[Command] = [commands.namespace for commands in built]
        make += [setting for commands in built for setting in commands.settings]
        make += [link for commands in built for link in commands.links]
        yield Stage(tuple(make), tuple(command for commands in built for command in commands.configure))
