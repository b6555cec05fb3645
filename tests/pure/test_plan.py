"""Plans of random labs, carried out on a fake kernel in the orders that an executor may choose."""

from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from itertools import pairwise
from random import Random
from unittest.mock import patch

import pytest
from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

from patchbay.layout.allocate import empty_layout, extend
from patchbay.layout.layout import IfaceLayout, Interface, Layout, NodeLayout, RouterLayout
from patchbay.model.lab import LabSpec
from patchbay.model.nat import Nat
from patchbay.plan import change, view
from patchbay.plan.change import between
from patchbay.plan.plan import Plan
from patchbay.tools.commands import Command, Ip
from tests.pure.fake_kernel import Kernel, lanes
from tests.pure.fake_packets import owner
from tests.pure.labs import QUICK, labs, layout_of, one_by_one, plain_labs, random_lab

# From how many nodes on a lab has permanent neighbour entries: so few that random labs cross it.
CROSSED = 5

seeds = st.integers(0, 2**32)
Schedule = Callable[[Plan], Iterator[Command]]


@pytest.fixture(autouse=True, scope="module")
def few_nodes_with_arp() -> Iterator[None]:
    with patch.object(view, "NODES_WITH_ARP", CROSSED), patch.object(change, "CHUNK", 3):
        yield


def early(plan: Plan) -> Iterator[Command]:
    """Everything is configured before the next stage is made."""
    yield from plan


def late(plan: Plan) -> Iterator[Command]:
    """All stages are made before anything is configured, the newest namespace first."""
    waiting: dict[str | None, list[Command]] = {}
    for make, configure in lanes(plan):
        yield from make
        for ns, commands in configure.items():
            waiting.setdefault(ns, []).extend(commands)
    for ns in reversed(list(waiting)):
        yield from waiting[ns]


def mixed(rng: Random) -> Schedule:
    """The namespaces' commands in turns, as chance has it."""

    def schedule(plan: Plan) -> Iterator[Command]:
        waiting: dict[str | None, list[Command]] = {}
        for make, configure in lanes(plan):
            for command in make:
                yield command
                while waiting and rng.random() < 0.5:
                    yield from one_of(waiting)
            for ns, commands in configure.items():
                waiting.setdefault(ns, []).extend(commands)
        while waiting:
            yield from one_of(waiting)

    def one_of(waiting: dict[str | None, list[Command]]) -> Iterator[Command]:
        ns = rng.choice(list(waiting))
        yield waiting[ns].pop(0)
        if not waiting[ns]:
            del waiting[ns]

    return schedule


def schedules(seed: int) -> list[Schedule]:
    return [early, late, mixed(Random(seed))]


def carried_out(plan: Plan, schedule: Schedule = early, kernel: Kernel | None = None) -> Kernel:
    kernel = kernel.copy() if kernel else Kernel()
    kernel.run(schedule(plan))
    kernel.made.sort()
    return kernel


def built(spec: LabSpec) -> Layout:
    return extend(empty_layout(), spec)


@QUICK
@given(labs(), seeds)
def test_a_plan_may_be_carried_out_in_any_order_that_its_stages_allow(spec: LabSpec, seed: int) -> None:
    plan = between(None, built(spec))
    kernels = [carried_out(plan, schedule) for schedule in schedules(seed)]
    assert kernels[0] == kernels[1] == kernels[2]


@QUICK
@given(labs())
def test_a_plan_makes_each_namespace_exactly_once(spec: LabSpec) -> None:
    layout = built(spec)
    assert carried_out(between(None, layout)).made == sorted(node.ns for node in layout.nodes())


def pool_of(layout: Layout, node: NodeLayout) -> list[Interface]:
    """What a port-block NAT has on its uplink beside the uplink's own."""
    return list(map(ip_interface, layout.policy(node).pool)) if isinstance(node, RouterLayout) else []


def bridge_of(layout: Layout, node: NodeLayout, iface: IfaceLayout) -> str | None:
    """The bridge that an uplink's port is in: that of its link, of the downlink above, or the LAN."""
    if link := layout.wires.get(("link", node.name, iface.name)):
        return link.bridge
    downlink = layout.wires.get(("downlink", iface.router))
    return downlink.below if downlink and downlink.ns == iface.router_ns else iface.router_lan.bridge


@QUICK
@given(labs())
def test_the_kernel_ends_up_with_the_addresses_and_macs_of_the_layout(spec: LabSpec) -> None:
    layout = built(spec)
    kernel = carried_out(between(None, layout))
    for node in layout.nodes():
        links = kernel.namespaces[node.ns].links
        for iface in node.ifaces:
            assert links[iface.name].addresses == {*iface.addresses, *pool_of(layout, node)}
            assert links[iface.name].mac == iface.mac
            assert links[iface.name].mtu == (iface.mtu or 1500)
            assert links[iface.name].peer == (iface.router_ns, iface.port)
            port = kernel.namespaces[iface.router_ns].links[iface.port]
            assert (port.mac, port.master) == (iface.port_mac, bridge_of(layout, node, iface))
        if isinstance(node, RouterLayout):
            assert links[node.lan.bridge].addresses == {*node.lan.addresses}
        assert all(link.up for link in links.values())
        assert [name for name, link in links.items() if not link.arp] == [
            name
            for wire in layout.wires.values()
            for name in (wire.bridge, wire.below)
            if wire.ns == node.ns and name
        ]


@QUICK
@given(labs(), seeds)
def test_adding_to_a_lab_gives_the_lab_that_building_it_at_once_gives(spec: LabSpec, seed: int) -> None:
    layouts = one_by_one(spec)
    kernel = carried_out(between(None, layouts[0]))
    for old, new in pairwise(layouts):
        kernel = carried_out(between(old, new), mixed(Random(seed)), kernel)
    assert kernel == carried_out(between(None, layouts[-1]))


def halfway(spec: LabSpec, seed: int) -> tuple[Layout, Layout]:
    layouts = one_by_one(spec)
    return layouts[Random(seed).randrange(len(layouts))], layouts[-1]


@QUICK
@given(labs(), seeds)
def test_going_back_takes_away_what_was_added(spec: LabSpec, seed: int) -> None:
    old, new = halfway(spec, seed)
    before = carried_out(between(None, old))
    for schedule in schedules(seed):
        after = carried_out(between(old, new), schedule, before)
        back = carried_out(between(new, old), schedule, after)
        assert back.namespaces == before.namespaces


@QUICK
@given(labs(), seeds)
def test_going_back_from_the_middle_takes_away_what_was_added_so_far(spec: LabSpec, seed: int) -> None:
    old, new = halfway(spec, seed)
    before = carried_out(between(None, old))
    for schedule in schedules(seed):
        forwards = list(schedule(between(old, new)))
        broken = before.copy()
        broken.run(forwards[: Random(seed).randint(0, len(forwards))])
        assert carried_out(between(new, old), schedule, broken).namespaces == before.namespaces


@QUICK
@given(labs(), seeds)
def test_a_device_may_be_replaced_by_one_with_the_same_names_in_one_plan(spec: LabSpec, seed: int) -> None:
    assume(spec.devices)
    base = built(evolve(spec, devices=spec.devices[:-1]))
    old = extend(base, LabSpec(devices=spec.devices[-1:]))
    new = extend(base, LabSpec(devices=(evolve(spec.devices[-1], mtu=1300),)))
    assert [node.ns for node in old.nodes()] == [node.ns for node in new.nodes()]
    before, wanted = carried_out(between(None, old)), carried_out(between(None, new))
    for schedule in schedules(seed):
        assert carried_out(between(old, new), schedule, before).namespaces == wanted.namespaces


@QUICK
@given(labs(), seeds)
def test_no_command_is_in_a_plan_twice(spec: LabSpec, seed: int) -> None:
    old, new = halfway(spec, seed)
    for plan in (between(None, new), between(old, new), between(new, old)):
        assert [command for command, times in Counter(map(repr, plan)).items() if times > 1] == []


@QUICK
@given(labs())
def test_the_newest_node_is_taken_away_first(spec: LabSpec) -> None:
    layout = built(spec)
    commands = [command.argv for command in between(layout, empty_layout())]
    removed = [argv[3] for argv in commands if argv[1:3] == ("netns", "del")]
    assert removed == [node.ns for node in layout.nodes()][:0:-1]


@QUICK
@given(labs())
def test_from_a_layout_to_an_equal_one_there_is_nothing_to_do(spec: LabSpec) -> None:
    plan = between(built(spec), built(spec))
    assert not plan and not list(plan)


@QUICK
@given(plain_labs())
def test_a_plan_names_the_bridges_that_got_a_port_to_be_settled(spec: LabSpec) -> None:
    *_, old, new = one_by_one(spec)
    (node,) = (node for node in new.nodes() if node.ns not in {each.ns for each in old.nodes()})
    assert between(old, new).settle == tuple(
        sorted({(iface.router_ns, iface.router_lan.bridge) for iface in node.ifaces})
    )


@QUICK
@given(labs())
def test_no_word_of_a_command_needs_quotes_in_a_batch(spec: LabSpec) -> None:
    for command in between(None, built(spec)):
        for word in command.args if isinstance(command, Ip) else ():
            assert word and not {*word} & {*" \t\n'\"\\#"}


def reaches_exchange(layout: Layout, router: RouterLayout, version: int) -> bool:
    while router.uplink:
        if router.uplink.gateway(version) is None:
            return False
        router = layout.forwarders[router.parent or ""]
    return True


def is_public(layout: Layout, router: RouterLayout, version: int) -> bool:
    while router.parent:
        if version == 4 and layout.policy(router).nat is not Nat.NONE:
            return False
        router = layout.forwarders[router.parent]
    return True


@QUICK
@given(labs())
def test_packets_find_their_way_to_every_public_address(spec: LabSpec) -> None:
    layout = built(spec)
    kernel = carried_out(between(None, layout))
    lan_of = {router.ns: router for router in layout.forwarders.values()}
    connected = [
        (node.ns, lan_of[iface.router_ns], address.ip)
        for node in layout.nodes()
        for iface in node.ifaces
        for address in (*iface.addresses, *pool_of(layout, node))
        if reaches_exchange(layout, lan_of[iface.router_ns], address.version)
        and (isinstance(node, RouterLayout) or iface is node.default_iface(address.version))
    ]
    for start, _, source in connected:
        for target, above, address in connected:
            if source.version == address.version and is_public(layout, above, address.version):
                assert owner(kernel, address, start) == target


ROUTER_NAMED_LIKE_A_PORT = """
[[router]]
name = "r"
[device.lo.eth0]
gateway = "r"
[device.all.eth0]
gateway = "r"
[device.default.eth0]
gateway = "r"
"""


def test_nodes_called_like_interfaces_of_the_kernel_get_ports_of_another_name() -> None:
    layout = layout_of(ROUTER_NAMED_LIKE_A_PORT)
    assert [device.ifaces[0].port for device in layout.devices.values()] == ["lo-2", "all-2", "default-2"]


def test_crossing_the_number_of_nodes_with_arp_installs_entries_also_for_the_nodes_that_were_there() -> None:
    layouts = one_by_one(random_lab(1, 0, 3, 5))
    small = next(layout for layout in layouts if len([*layout.nodes()]) == CROSSED)
    large = layouts[-1]
    kernel = carried_out(between(None, small))
    assert not any(ns.neighbours for ns in kernel.namespaces.values())
    kernel = carried_out(between(small, large), kernel=kernel)
    found = {(ns, address) for ns, space in kernel.namespaces.items() for _, address in space.neighbours}
    expected = {
        entry
        for node in large.nodes()
        for iface in node.ifaces
        for address, gateway in zip(iface.addresses, iface.gateways, strict=True)
        for entry in ((node.ns, gateway), (iface.router_ns, address.ip))
    }
    assert found == expected
