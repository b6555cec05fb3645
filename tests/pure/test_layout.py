"""What holds for the layout of every lab: random ones are laid out, and looked at from outside."""

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from itertools import pairwise

from attrs import evolve
from hypothesis import assume, given

from patchbay.layout.allocate import empty_layout, extend
from patchbay.layout.layout import IfaceLayout, Layout, Network, RouterLayout
from patchbay.model.lab import LabSpec
from patchbay.model.names import KERNEL_IFNAMES
from patchbay.model.nat import Nat
from tests.pure.labs import QUICK, labs, one_by_one


def built(spec: LabSpec) -> Layout:
    return extend(empty_layout(), spec)


def repeated(values: Iterator[object]) -> list[object]:
    return [value for value, times in Counter(values).items() if times > 1]


def domain(layout: Layout, router: RouterLayout, version: int) -> str:
    """The namespace of the nearest router, from this one upwards, that hides what is below it."""
    while router.parent and not (version == 4 and layout.policy(router).nat is not Nat.NONE):
        router = layout.forwarders[router.parent]
    return router.ns


def ifaces(layout: Layout) -> Iterator[IfaceLayout]:
    return (iface for node in layout.nodes() for iface in node.ifaces)


def with_sorted_blocks(layout: Layout) -> Layout:
    """As if hosts had got their blocks of ports in the order of their addresses."""
    policies = {
        ns: evolve(policy, blocks={host: number for number, host in enumerate(sorted(policy.blocks))})
        for ns, policy in layout.policies.items()
    }
    return evolve(layout, policies=policies)


def lan_of(layout: Layout, iface: IfaceLayout) -> RouterLayout:
    return next(router for router in layout.forwarders.values() if router.ns == iface.router_ns)


@QUICK
@given(labs())
def test_no_address_is_given_twice_within_one_routing_domain(spec: LabSpec) -> None:
    layout = built(spec)
    given_out = [
        (domain(layout, router, address.version), address.ip)
        for router in layout.forwarders.values()
        for address in router.lan.addresses
    ] + [
        (domain(layout, lan_of(layout, iface), address.version), address.ip)
        for iface in ifaces(layout)
        for address in iface.addresses
    ]
    assert repeated(iter(given_out)) == []


@QUICK
@given(labs())
def test_networks_of_one_routing_domain_do_not_overlap(spec: LabSpec) -> None:
    layout = built(spec)
    seen: list[tuple[str, Network]] = []
    for router in layout.forwarders.values():
        for network in router.networks:
            here = domain(layout, router, network.version)
            for there, other in seen:
                assert here != there or network.version != other.version or not network.overlaps(other)
            seen.append((here, network))


@QUICK
@given(labs())
def test_only_routers_of_the_same_domain_get_a_route_to_a_network(spec: LabSpec) -> None:
    layout = built(spec)
    by_ns = {router.ns: router for router in layout.forwarders.values()}
    for router in layout.forwarders.values():
        for route in router.routes:
            version = route.prefix.version
            if route.via:
                assert domain(layout, by_ns[route.ns], version) == domain(layout, router, version)


@QUICK
@given(labs())
def test_no_mac_namespace_or_port_is_given_twice(spec: LabSpec) -> None:
    layout = built(spec)
    macs = [router.lan.mac for router in layout.forwarders.values()]
    macs += [mac for iface in ifaces(layout) for mac in (iface.mac, iface.port_mac)]
    assert repeated(iter(macs)) == []
    assert repeated(node.ns for node in layout.nodes()) == []
    assert repeated((iface.router_ns, iface.port) for iface in ifaces(layout)) == []
    for mac in macs:
        assert mac.startswith("02:") and len(bytes.fromhex(mac.replace(":", ""))) == 6


@QUICK
@given(labs())
def test_every_interface_name_is_one_that_the_kernel_accepts(spec: LabSpec) -> None:
    for iface in ifaces(built(spec)):
        for name in (iface.name, iface.port):
            assert 1 <= len(name.encode()) <= 15
        assert iface.port not in KERNEL_IFNAMES | {"lan", "wan"}
        assert iface.port.isascii() and not {*iface.port} & {*" ./:%'\"\\#*@"}


@QUICK
@given(labs())
def test_every_interface_has_an_address_and_a_gateway_of_each_version_of_its_lan(spec: LabSpec) -> None:
    layout = built(spec)
    uplinks = [router.uplink for router in layout.forwarders.values()]
    for iface in ifaces(layout):
        lans = {address.ip: address.network for address in iface.router_lan.addresses}
        assert len(iface.addresses) == len(iface.gateways) >= 1
        for address, gateway in zip(iface.addresses, iface.gateways, strict=True):
            lan = lans[gateway]
            # A router's uplink is a line of its own; a device is one of many on its LAN.
            assert address.network == (ip_network(address.ip) if iface in uplinks else lan)
            assert address.ip in lan
            assert address.ip not in (gateway, lan.network_address)
            assert address.version == 6 or address.ip != lan.broadcast_address
    for device in layout.devices.values():
        for iface in device.ifaces:
            assert iface.gateways == tuple(address.ip for address in lan_of(layout, iface).lan.addresses)


@QUICK
@given(labs())
def test_the_same_lab_is_laid_out_the_same_way_each_time(spec: LabSpec) -> None:
    one, other = built(spec), built(spec)
    assert one == other
    assert [node.ns for node in one.nodes()] == [node.ns for node in other.nodes()]


@QUICK
@given(labs())
def test_a_lab_built_at_once_equals_one_built_step_by_step(spec: LabSpec) -> None:
    """But for blocks of ports, which hosts get in the order in which they come."""
    one, other = one_by_one(spec)[-1], built(spec)
    # A pool is given out when the hosts below need it: to others it leaves other addresses.
    assume(not any(policy.pool for policy in other.policies.values()))
    assert with_sorted_blocks(one) == with_sorted_blocks(other)


@QUICK
@given(labs())
def test_extending_a_layout_leaves_the_old_one_alone(spec: LabSpec) -> None:
    layouts = one_by_one(spec)
    assert layouts == one_by_one(spec)
    for before, after in pairwise(layouts):
        kept = {node.ns: node for node in before.nodes()}
        assert {ns: node for node in after.nodes() if (ns := node.ns) in kept} == kept
        assert len([*after.nodes()]) == len(kept) + 1


@QUICK
@given(labs())
def test_a_router_comes_before_the_nodes_below_it(spec: LabSpec) -> None:
    layout = built(spec)
    seen = set()
    for node in layout.nodes():
        assert all(iface.router_ns in seen for iface in node.ifaces)
        seen.add(node.ns)


@QUICK
@given(labs())
def test_routers_named_from_the_bottom_up_are_built_all_the_same(spec: LabSpec) -> None:
    upside_down = LabSpec(spec.regions, tuple(reversed(spec.routers)), spec.devices)
    layout = built(upside_down)
    assert {router.name for router in spec.routers} <= {router.name for router in layout.forwarders.values()}
    for router in spec.routers:
        found = layout.router(router.name)
        assert found and found.parent
        assert found.parent.partition(":")[2] == (router.upstream or router.region or "ix")


@QUICK
@given(labs())
def test_a_node_is_found_by_its_name(spec: LabSpec) -> None:
    layout = built(spec)
    for router in spec.routers:
        assert layout.node(router.name) is layout.router(router.name) is not None
    for device in spec.devices:
        assert layout.node(device.name) is layout.devices[device.name]
    for region in spec.regions:
        assert layout.region(region.name) in layout.forwarders.values()
    assert layout.node("ix") is layout.ix
    assert layout.node("no such node") is None


def test_the_exchange_has_the_addresses_that_the_documentation_names() -> None:
    assert [address.ip for address in empty_layout().ix.lan.addresses] == [
        ip_address("26.0.0.1"),
        ip_address("2d00::1"),
    ]
