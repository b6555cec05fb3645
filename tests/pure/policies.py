"""What the tests of changed NATs and firewalls share: a lab, its changes, and histories of them."""

from collections.abc import Callable, Iterator
from random import Random

from patchbay.execute.batches import batches
from patchbay.lab.policies import forgotten, with_firewall, with_nat
from patchbay.layout.allocate import extend
from patchbay.layout.layout import Layout, RouterLayout
from patchbay.model.lab import DeviceSpec, IfaceSpec, LabSpec
from patchbay.plan.change import between
from patchbay.plan.plan import Plan
from patchbay.tools.commands import Command, Nft
from tests.pure.fake_kernel import Kernel
from tests.pure.labs import FIREWALLS, NATS, layout_of, one_by_one

Change = Callable[[Layout], Layout]

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
    return with_nat(router(name=name).ns, wished)


def firewall(wished: object, name: str = "r") -> Change:
    return with_firewall(router(name=name).ns, wished)


def flush(name: str = "r") -> Change:
    return forgotten(router(name=name).ns)


def device(name: str, at: str = "r") -> Change:
    return lambda layout: extend(layout, LabSpec(devices=(DeviceSpec(name, {"eth0": IfaceSpec(at)}),)))


def plan(old: Layout, change: Change) -> Plan:
    return between(old, change(old))


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
        ns = rng.choice([*layout.policies])
        change = rng.choice(
            [
                with_nat(ns, rng.choice(NATS)),
                with_firewall(ns, rng.choice(FIREWALLS)),
                forgotten(ns),
            ]
        )
        layout = change(layout)
        yield layout


def built(layout: Layout) -> Kernel:
    return carried_out(between(None, layout))
