"""How large a lab may be, and what is said beyond that."""

from collections import Counter
from ipaddress import IPv4Network, IPv6Network
from typing import Any
from unittest.mock import patch

import pytest

from patchbay.change.nodes import RemoveRouter
from patchbay.config.draft import Draft
from patchbay.errors import AllocationError, SpecError
from patchbay.layout import pools
from patchbay.layout.allocate import empty_layout, extend, lay_out
from patchbay.layout.layout import Layout
from patchbay.layout.pools import CARRIER, PRIVATE, PUBLIC_PLANS, ULA, Pool, host_in
from patchbay.model.lab import (
    Addresses,
    DeviceSpec,
    IfaceSpec,
    LabSpec,
    RegionSpec,
    RouterPreset,
    RouterSpec,
)
from patchbay.model.nat import Nat
from patchbay.plan.change import between
from tests.pure.labs import router_of


def routers(number: int, **traits: Any) -> tuple[RouterSpec, ...]:
    return tuple(RouterSpec(f"r{n}", **traits) for n in range(number))


def devices(number: int, on: int = 1) -> tuple[DeviceSpec, ...]:
    """Devices on the first `on` routers in turns."""
    return tuple(DeviceSpec(f"d{n}", {"eth0": IfaceSpec(f"r{n % on}")}) for n in range(number))


def built(spec: LabSpec) -> Layout:
    return lay_out(Draft(spec))


def refusal(spec: LabSpec) -> str:
    with pytest.raises(AllocationError) as raised:
        built(spec)
    return str(raised.value)


@pytest.mark.parametrize("number", [1, 20], ids=["one router", "20 routers"])
def test_a_thousand_devices_fit_behind_public(number: int) -> None:
    layout = built(
        LabSpec(routers=routers(number, preset=RouterPreset.PUBLIC), devices=devices(1000, number))
    )
    addresses = [str(address) for device in layout.devices.values() for address in device.ifaces[0].addresses]
    assert len({*addresses}) == 2000


@pytest.mark.parametrize("preset", [*RouterPreset, None], ids=lambda preset: preset or "no preset")
def test_two_hundred_routers_fit_of(preset: RouterPreset | None) -> None:
    layout = built(LabSpec(routers=routers(200, preset=preset)))
    networks = [network for router in layout.forwarders.values() for network in router.networks]
    assert len({*networks}) == len(networks)


def test_the_number_of_commands_grows_with_the_number_of_nodes_and_no_faster() -> None:
    """Three sizes above the one from which on there are permanent neighbour entries."""
    hosts = [150, 300, 450]
    counts = []
    for number in hosts:
        spec = LabSpec(routers=routers(100, preset=RouterPreset.HOME), devices=devices(number, 100))
        layout = built(spec)
        owners = Counter(command.owner for command in between(None, layout))
        assert len({owners[device.ns] for device in layout.devices.values()}) == 1
        assert len({owners[router.ns] for router in layout.forwarders.values()} - {owners["ix"]}) == 1
        counts.append(sum(owners.values()))
    assert counts[2] - counts[1] == counts[1] - counts[0] == 150 * owners["d0"]


def test_the_exchange_of_documentation_addresses_is_full_with_253_routers() -> None:
    private = {"nat": Nat.HOME, "downstream_cidr": IPv4Network("192.168.1.0/24")}
    few = Addresses.DOCUMENTATION
    built(LabSpec(routers=routers(253, **private), addresses=few))
    assert refusal(LabSpec(routers=routers(254, **private), addresses=few)) == (
        "no address left below the exchange: it has room for 253; put routers below other routers (upstream=)"
    )


def test_a_router_is_full_when_its_network_is() -> None:
    small = RouterSpec("r0", downstream_cidr=IPv4Network("192.0.2.0/29"))
    layout = built(LabSpec(routers=(small,), devices=devices(5)))
    assert [str(device.ifaces[0].addresses[0]) for device in layout.devices.values()] == [
        f"192.0.2.{number}/29" for number in range(2, 7)
    ]
    assert refusal(LabSpec(routers=(small,), devices=devices(6))) == (
        "no address left below router 'r0': it has room for 5; "
        "give it a wider downstream_cidr than 192.0.2.0/29"
    )


def test_the_smallest_network_has_room_for_one_device() -> None:
    small = RouterSpec("r0", downstream_cidr=IPv4Network("192.0.2.0/30"))
    built(LabSpec(routers=(small,), devices=devices(1)))
    assert "it has room for 1;" in refusal(LabSpec(routers=(small,), devices=devices(2)))


def test_the_public_pool_has_256_networks() -> None:
    below = routers(1) + tuple(RouterSpec(f"below{n}", upstream="r0") for n in range(255))
    built(LabSpec(routers=below))
    assert refusal(LabSpec(routers=(*below, RouterSpec("last", upstream="r0")))) == (
        "the public pool is used up: it has 256 networks; give some routers a downstream_cidr of their own"
    )


def test_the_private_pool_has_256_networks() -> None:
    below = tuple(RouterSpec(f"below{n}", upstream="r0", nat=Nat.HOME) for n in range(256))
    built(LabSpec(routers=(*routers(1), *below)))
    assert refusal(LabSpec(routers=(*routers(2, nat=Nat.HOME), *below))) == (
        "the private pool is used up: it has 256 networks; give some routers a downstream_cidr of their own"
    )


@pytest.mark.parametrize(("addresses", "most"), [("global", 255), ("documentation", 64)])
def test_the_regions_of_a_pool_run_out(addresses: str, most: int) -> None:
    regions = tuple(RegionSpec(str(n)) for n in range(most + 1))
    built(LabSpec(regions=regions[:most], addresses=Addresses(addresses)))
    assert refusal(LabSpec(regions=regions, addresses=Addresses(addresses))) == (
        f"the region pool is used up: it has {most} networks"
    )


def test_a_pool_gives_out_its_blocks_one_after_another() -> None:
    pool = Pool("test", ((IPv4Network("192.0.2.0/24"), 25), (IPv4Network("198.51.100.0/24"), 26)))
    assert pool.size == 6
    assert [str(pool.network(number)) for number in range(pool.size)] == [
        "192.0.2.0/25",
        "192.0.2.128/25",
        "198.51.100.0/26",
        "198.51.100.64/26",
        "198.51.100.128/26",
        "198.51.100.192/26",
    ]
    assert pool.network(6) is None


PLANS = pytest.mark.parametrize("addresses", list(Addresses))
# Set aside for documentation and benchmarks: RFC 5737, 3849, 2544, 5180.
HARMLESS: list[IPv4Network | IPv6Network] = [
    *map(IPv4Network, ("203.0.113.0/24", "198.18.0.0/15")),
    *map(IPv6Network, ("2001:db8::/32", "2001:2::/48")),
]
# IANA's registries of special-purpose addresses, as Rust's `is_global` and Python's have them, with
# multicast, 6to4 relays (RFC 7526) and 6to4 itself. Each row of a registry is in one of these.
SPECIAL: list[IPv4Network | IPv6Network] = [
    *map(IPv4Network, ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16")),
    *map(IPv4Network, ("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24")),
    *map(IPv4Network, ("192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24")),
    *map(IPv4Network, ("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3")),
    *map(IPv6Network, ("::/3", "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48")),
    *map(IPv6Network, ("3fff::/20", "4000::/2", "8000::/1")),
]


def public_networks(addresses: Addresses) -> list[IPv4Network | IPv6Network]:
    plan = PUBLIC_PLANS[addresses]
    own_pools = (plan.region, plan.region_v6, plan.public, plan.public_v6)
    return [
        *(block for pool in own_pools for block, _ in pool.blocks),
        *(own.network for own in plan.exchange),
    ]


def overlapping(network: IPv4Network | IPv6Network, others: list[IPv4Network | IPv6Network]) -> list[Any]:
    return [other for other in others if other.version == network.version and other.overlaps(network)]


def test_public_addresses_are_in_no_special_range() -> None:
    for network in public_networks(Addresses.GLOBAL):
        assert not overlapping(network, SPECIAL)
        assert network.network_address.is_global and network.broadcast_address.is_global


def test_documentation_addresses_are_nobodys() -> None:
    for network in public_networks(Addresses.DOCUMENTATION):
        assert any(network.subnet_of(each) for each in overlapping(network, HARMLESS))


@PLANS
def test_no_network_is_given_out_twice(addresses: Addresses) -> None:
    """The exchange has what comes before the first network of a pool."""
    plan = PUBLIC_PLANS[addresses]
    first = [
        pool.network(0)
        for pool in (plan.region, plan.region_v6, plan.public, plan.public_v6, PRIVATE, CARRIER, ULA)
    ]
    networks = [network for network in (*first, *(own.network for own in plan.exchange)) if network]
    assert len(networks) == 9
    for number, network in enumerate(networks):
        assert not overlapping(network, networks[:number])


@pytest.mark.parametrize(
    ("addresses", "lan"), [("global", "2d00:0:1::/48"), ("documentation", "2001:db8:1::/48")]
)
def test_the_exchange_has_the_first_network_of_the_public_ipv6_pool_for_itself(
    addresses: str, lan: str
) -> None:
    spec = LabSpec(routers=routers(1, preset=RouterPreset.PUBLIC), addresses=Addresses(addresses))
    assert router_of(built(spec), "r0").networks[1] == IPv6Network(lan)


def test_a_lab_keeps_the_ranges_that_it_was_opened_with() -> None:
    layout = built(LabSpec(routers=routers(1), addresses=Addresses.DOCUMENTATION))
    layout = extend(layout, LabSpec(routers=(RouterSpec("s"),), addresses=Addresses.DOCUMENTATION))
    assert router_of(layout, "s").networks[0] == IPv4Network("198.18.4.0/22")


@pytest.mark.parametrize(("opened", "added"), [("documentation", "global"), ("global", "documentation")])
def test_an_open_lab_does_not_change_its_ranges_not_even_when_it_is_empty(opened: str, added: str) -> None:
    with pytest.raises(SpecError) as raised:
        extend(built(LabSpec(addresses=Addresses(opened))), LabSpec(addresses=Addresses(added)))
    assert str(raised.value) == (
        f"addresses: found '{added}', but the lab has '{opened}' since it was opened; "
        f"accepted: the same, or open_lab(addresses='{added}')"
    )


@pytest.mark.parametrize(
    ("network", "last"),
    [(IPv4Network("192.0.2.0/30"), 2), (IPv6Network("2001:db8::/126"), 3)],
    ids=["IPv4, less the broadcast address", "IPv6"],
)
def test_the_last_host_of_a_network_in(network: IPv4Network | IPv6Network, last: int) -> None:
    found = host_in(network, last)
    assert found
    assert found.ip == network[last]
    assert host_in(network, last + 1) is None


def test_wrong_values_are_reported_before_values_that_do_not_fit() -> None:
    with pytest.raises(SpecError) as raised:
        built(LabSpec(regions=(RegionSpec("-"), *(RegionSpec(str(n)) for n in range(256)))))
    assert [problem.path for problem in raised.value.problems] == ["region.-"]


def test_macs_that_happen_to_collide_are_made_different() -> None:
    def few(_node: str, _iface: str, attempt: int = 0) -> str:
        return f"02:00:00:00:00:{attempt:02x}"

    with patch.object(pools, "mac_of", few):
        layout = built(LabSpec(routers=routers(2), devices=devices(2)))
    macs = [iface.mac for node in layout.nodes() for iface in node.ifaces]
    macs += [iface.port_mac for node in layout.nodes() for iface in node.ifaces]
    macs += [router.lan.mac for router in layout.forwarders.values()]
    assert sorted(macs) == [few("", "", number) for number in range(11)]


@pytest.mark.parametrize("name", ["IPv6", "public", "other", "hosts", "wires"])
def test_the_networks_of_a_removed_router_of_any_name_are_not_given_out_again(name: str) -> None:
    public = RouterPreset.PUBLIC
    layout = extend(empty_layout(), LabSpec(routers=(RouterSpec("first", public), RouterSpec(name, public))))
    taken = {network for router in ("first", name) for network in router_of(layout, router).networks}
    layout = RemoveRouter(name).apply(layout)
    layout = extend(layout, LabSpec(routers=(RouterSpec("next", public),)))
    assert not taken & {*router_of(layout, "next").networks}
