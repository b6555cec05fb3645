"""Blocks of ports: which outside address and ports each host below a port-block NAT has for itself."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from patchbay.config.draft import Draft
from patchbay.errors import AllocationError
from patchbay.layout.allocate import empty_layout, extend, lay_out
from patchbay.layout.blocks import Block, block_of, pages, with_blocks
from patchbay.layout.layout import Layout, PolicyLayout, RouterLayout
from patchbay.model.lab import Addresses, DeviceSpec, IfaceSpec, LabSpec, RegionSpec, RouterSpec
from patchbay.model.nat import Nat, NatConfig
from patchbay.plan.nat import block_elements
from tests.pure.labs import QUICK

OUTSIDE = IPv4Address("26.0.0.2")


def block_nat(size: int) -> NatConfig:
    return NatConfig(port_allocation=f"block:{size}")


def device(name: str, *routers: str) -> DeviceSpec:
    return DeviceSpec(name, {f"eth{number}": IfaceSpec(router) for number, router in enumerate(routers)})


def devices(number: int, router: str = "cgn", first: int = 0) -> tuple[DeviceSpec, ...]:
    return tuple(device(f"{router}-{each}", router) for each in range(first, first + number))


def built(
    *routers: RouterSpec, devices: tuple[DeviceSpec, ...] = (), addresses: Addresses = Addresses.GLOBAL
) -> Layout:
    return lay_out(Draft(LabSpec(routers=routers, devices=devices, addresses=addresses)))


def found(layout: Layout, name: str = "cgn") -> tuple[RouterLayout, PolicyLayout]:
    router = layout.router(name)
    assert router
    return router, layout.policy(router)


def blocks_of(layout: Layout, size: int, name: str = "cgn") -> dict[IPv4Address, Block]:
    router, policy = found(layout, name)
    return {host: block_of(router, policy, size, number) for host, number in policy.blocks.items()}


def upstream_of_a_million() -> RouterSpec:
    """So that as many outside addresses as are wished for fit in."""
    return RouterSpec("isp", downstream_cidr=IPv4Network("10.0.0.0/12"))


def lab(size: int, hosts: int) -> Layout:
    """The NAT below a router with room for its addresses, and hosts below it at their places, without links:
    only the allocation of blocks is looked at.
    """
    return built(
        upstream_of_a_million(),
        RouterSpec("cgn", upstream="isp", nat=block_nat(size)),
        devices=devices(hosts),
    )


@QUICK
@given(st.integers(1, 64512), st.integers(0, 300))
def test_no_two_hosts_have_a_port_of_an_address_in_common(size: int, hosts: int) -> None:
    layout = lab(size, hosts)
    router, policy = found(layout)
    blocks = blocks_of(layout, size)
    assert len(blocks) == hosts
    assert router.uplink
    own = {router.uplink.addresses[0].ip, *policy.pool}
    for block in blocks.values():
        assert block.outside in own and block.size == size
        assert block.first >= 1024 and block.first + block.size <= 65536
    ordered = sorted(blocks.values(), key=lambda block: (block.outside, block.first))
    for one, other in pairwise(ordered):
        assert one.outside != other.outside or one.first + size <= other.first
    # No address is taken in vain.
    assert {block.outside for block in blocks.values()} | {router.uplink.addresses[0].ip} == own


@QUICK
@given(st.integers(1, 64512), st.integers(1, 40))
def test_the_elements_of_a_host_put_its_block_together_from_two_bytes(size: int, hosts: int) -> None:
    layout = lab(size, hosts)
    blocks = blocks_of(layout, size)
    elements = dict(block_elements(*found(layout)))
    hosts_of = {what.removeprefix("block "): text for what, text in elements.items() if "block " in what}
    addresses = {f"outside {{ {block.outside} }}\n" for block in blocks.values()}
    assert addresses <= {text for what, text in elements.items() if what.startswith("outside ")}
    assert len(hosts_of) == hosts
    for host, text in hosts_of.items():
        outside, page = text.splitlines()
        block = blocks[IPv4Address(host)]
        assert outside == f"outside_address {{ {host} : {block.outside} }}"
        places = dict(each.split(" : ") for each in page[len("page { ") : -len(" }")].split(", "))
        # Of each port of the block: its number's upper byte leads to the upper byte of the port.
        for number in {0, 255, 256, size // 2, size - 1} & {*range(size)}:
            port = int(places[f"{host} . {number // 256}"]) * 256 + number % 256
            assert port == block.first + number
        assert len(places) == pages(size)


@QUICK
@given(st.integers(1, 64512), st.lists(st.integers(0, 20), min_size=1, max_size=5))
def test_blocks_stay_the_same_when_hosts_are_added(size: int, steps: list[int]) -> None:
    layout = lab(size, 0)
    known: dict[IPv4Address, Block] = {}
    for number, hosts in enumerate(steps):
        layout = extend(layout, LabSpec(devices=devices(hosts, first=100 * number)))
        now = blocks_of(layout, size)
        assert {host: now[host] for host in known} == known
        known = now
    assert len(known) == sum(steps)


@pytest.mark.parametrize(
    ("size", "fits"),
    [(1, 252), (256, 252), (257, 126), (1008, 63), (32256, 2), (32257, 1), (64512, 1)],
    ids=str,
)
def test_one_address_has_blocks_for(size: int, fits: int) -> None:
    assert found(lab(size, fits))[1].pool == ()
    assert len(found(lab(size, fits + 1))[1].pool) == 1


# Who has one


def inside(layout: Layout, name: str = "cgn") -> list[str]:
    return sorted(map(str, found(layout, name)[1].blocks))


CGN = RouterSpec("cgn", nat=Nat.CGNAT)
HOME = RouterSpec("home", nat=Nat.HOME, upstream="cgn")
PLAIN = RouterSpec("plain", upstream="cgn", downstream_cidr=IPv4Network("100.64.64.0/24"))


def test_hosts_behind_a_nat_below_share_its_one_block() -> None:
    layout = built(CGN, HOME, devices=devices(3, "home"))
    home, _ = found(layout, "home")
    assert home.uplink
    assert inside(layout) == [str(home.uplink.addresses[0].ip)] == ["100.64.0.2"]


def test_hosts_behind_a_router_below_that_translates_nothing_have_their_own_as_it_has() -> None:
    layout = built(CGN, PLAIN, devices=devices(2, "plain"))
    assert inside(layout) == ["100.64.0.2", "100.64.64.2", "100.64.64.3"]


def test_a_device_with_two_interfaces_below_has_a_block_for_each_address() -> None:
    layout = built(CGN, PLAIN, RouterSpec("other"), devices=(device("d", "cgn", "plain", "other"),))
    assert inside(layout) == ["100.64.0.2", "100.64.0.3", "100.64.64.2"]


def test_of_two_port_block_nats_each_gives_blocks_to_what_it_sees() -> None:
    inner = RouterSpec("inner", nat=Nat.CGNAT, upstream="cgn")
    layout = built(CGN, inner, devices=devices(2, "inner"))
    assert inside(layout) == ["100.64.0.2"]
    assert len(inside(layout, "inner")) == 2


def test_without_a_port_block_nat_nobody_has_a_block() -> None:
    for nat in (Nat.NONE, Nat.HOME, Nat.CORPORATE):
        layout = built(RouterSpec("cgn", nat=nat), devices=devices(3))
        assert (inside(layout), found(layout)[1].pool) == ([], ())


def test_hosts_that_were_there_get_blocks_when_the_nat_becomes_one_of_blocks() -> None:
    layout = built(RouterSpec("cgn", nat=Nat.HOME), devices=devices(3))
    router, policy = found(layout)
    changed = with_blocks(
        evolve(layout, policies={**layout.policies, router.ns: evolve(policy, nat=Nat.CGNAT)})
    )
    assert inside(changed) == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    assert with_blocks(changed) is changed


# The addresses


def given_out(layout: Layout) -> Iterator[IPv4Address]:
    for node in layout.nodes():
        addresses = (address.ip for iface in node.ifaces for address in iface.addresses)
        yield from (address for address in addresses if isinstance(address, IPv4Address))
    for policy in layout.policies.values():
        yield from policy.pool


@QUICK
@given(st.lists(st.sampled_from(["cgn", "other", "router"]), max_size=20))
def test_addresses_of_a_pool_are_never_given_to_others(steps: list[str]) -> None:
    nat = block_nat(64512)
    layout = built(RouterSpec("cgn", nat=nat), RouterSpec("other", nat=nat))
    for number, step in enumerate(steps):
        added = (
            LabSpec(routers=(RouterSpec(f"r{number}"),))
            if step == "router"
            else LabSpec(devices=(device(f"d{number}", step),))
        )
        layout = extend(layout, added)
    above = [address for address in given_out(layout) if address in IPv4Network("26.0.0.0/16")]
    assert (
        len(above)
        == len({*above})
        == 2 + steps.count("router") + sum(max(0, steps.count(name) - 1) for name in ("cgn", "other"))
    )


def test_the_pool_is_of_the_network_above_also_in_a_region_and_below_a_router() -> None:
    nat = block_nat(64512)
    spec = LabSpec(
        regions=(RegionSpec("eu"),),
        routers=(
            RouterSpec("isp"),
            RouterSpec("cgn", nat=nat, upstream="isp"),
            RouterSpec("other", nat=nat, region="eu"),
        ),
        devices=(*devices(2), *devices(2, "other")),
    )
    layout = extend(empty_layout(), spec)
    for name in ("cgn", "other"):
        router, policy = found(layout, name)
        above = layout.forwarders[router.parent or ""]
        (address,) = policy.pool
        assert address in above.networks[0] and address not in {a.ip for a in above.lan.addresses}


@pytest.mark.parametrize(
    ("routers", "way_out"),
    [
        ((RouterSpec("cgn", nat=block_nat(64512)),), "the exchange: it has room for 253; put routers below"),
        (
            (
                RouterSpec("isp", downstream_cidr=IPv4Network("192.0.2.0/28")),
                RouterSpec("cgn", nat=block_nat(64512), upstream="isp"),
            ),
            "router 'isp': it has room for 13; give it a wider downstream_cidr than 192.0.2.0/28",
        ),
    ],
    ids=["on the exchange", "below a router"],
)
def test_where_the_network_above_is_full_the_error_names_a_way_out(
    routers: tuple[RouterSpec, ...], way_out: str
) -> None:
    room = 13 if len(routers) == 2 else 253
    layout = built(*routers, devices=devices(room), addresses=Addresses.DOCUMENTATION)
    assert len(found(layout)[1].pool) == room - 1
    with pytest.raises(AllocationError) as raised:
        extend(layout, LabSpec(devices=(device("one-more", "cgn"),)))
    assert way_out in str(raised.value)


def test_where_the_network_above_is_full_the_error_names_the_nat_and_its_blocks() -> None:
    cgn = RouterSpec("cgn", nat=block_nat(64512))
    layout = built(cgn, devices=devices(253), addresses=Addresses.DOCUMENTATION)
    with pytest.raises(AllocationError, match=r"^router 'cgn' .*smaller blocks than 64512 ports$"):
        extend(layout, LabSpec(devices=(device("one-more", "cgn"),)))
