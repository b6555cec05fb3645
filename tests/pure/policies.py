"""What the tests of changed NATs and firewalls share: a lab, its changes, and histories of them."""

from collections.abc import Iterator
from random import Random

from patchbay.change.base import Change
from patchbay.change.made import made_of
from patchbay.change.nodes import Add
from patchbay.change.policies import FlushNat, SetFirewall, SetNat
from patchbay.execute.batches import batches
from patchbay.layout.layout import Layout, RouterLayout
from patchbay.model.lab import DeviceSpec, IfaceSpec, LabSpec
from patchbay.plan.change import between
from patchbay.plan.plan import Plan
from patchbay.tools.commands import Command, Nft
from tests.pure.fake_kernel import Kernel
from tests.pure.labs import FIREWALLS, NATS, layout_of, one_by_one

# Block NATs with three hosts: two devices, and a router below.
LAB = layout_of("""
[[router]]
name = "r"
preset = "home"
[[router]]
name = "below"
upstream = "r"
nat = "home"
[device.one.eth0]
gateway = "r"
[device.two.eth0]
gateway = "r"
[device.three.eth0]
gateway = "below"
""")
BLOCKS = {"port_allocation": "block:1008"}
# Of which three hosts need three outside addresses.
ALL_PORTS = {"port_allocation": "block:64512"}


def router(layout: Layout = LAB, name: str = "r") -> RouterLayout:
    found = layout.router(name)
    assert found
    return found


def nat(wished: object, name: str = "r") -> Change:
    return made_of(SetNat, router=name, nat=wished)


def firewall(wished: object, name: str = "r") -> Change:
    return made_of(SetFirewall, router=name, firewall=wished)


def flush(name: str = "r") -> Change:
    return FlushNat(name)


def device(name: str, at: str = "r") -> Change:
    return Add(LabSpec(devices=(DeviceSpec(name, {"eth0": IfaceSpec(at)}),)))


def after(layout: Layout, *changes: Change) -> Layout:
    for change in changes:
        layout = change.apply(layout)
    return layout


def plan(old: Layout, *changes: Change) -> Plan:
    return between(old, after(old, *changes))


def carried_out(plan: Plan, kernel: Kernel | None = None) -> Kernel:
    kernel = kernel.copy() if kernel else Kernel()
    kernel.run(plan)
    kernel.made.sort()
    return kernel


def parts(plan: Plan) -> list[list[Command]]:
    """What is done as a whole or not at all: rules that follow each other, any other command by itself."""
    found: list[list[Command]] = []
    for batch in batches(list(plan)):
        commands = list(batch.commands)
        found += [commands] if isinstance(commands[0], Nft) else [[command] for command in commands]
    return found


def transactions(plan: Plan) -> list[tuple[str, list[str]]]:
    """(namespace, texts) of each transaction of nft."""
    together = (batch.commands for batch in batches(list(plan)))
    return [
        (commands[0].ns, [it.ruleset for it in commands if isinstance(it, Nft)])
        for commands in together
        if isinstance(commands[0], Nft)
    ]


def history(spec: LabSpec, seed: int, steps: int = 8) -> Iterator[Layout]:
    """Layouts of a lab whose NATs and firewalls change."""
    rng = Random(seed)
    layouts = one_by_one(spec)
    yield from layouts
    layout = layouts[-1]
    for _ in range(steps):
        name = rng.choice([router.name for router in spec.routers])
        changes = (
            SetNat(name, rng.choice(NATS)),
            SetFirewall(name, rng.choice(FIREWALLS)),
            FlushNat(name),
        )
        layout = rng.choice(changes).apply(layout)
        yield layout


def built(layout: Layout) -> Kernel:
    return carried_out(between(None, layout))
