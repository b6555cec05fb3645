"""Outside addresses of port-block NATs beside the uplink's own: where they are, and who reaches them."""

from ipaddress import ip_network

import pytest

from patchbay.layout.layout import Layout
from patchbay.plan.change import between
from patchbay.tools.commands import Ip, Nft
from tests.pure.fake_kernel import Kernel
from tests.pure.fake_packets import owner
from tests.pure.labs import layout_of
from tests.pure.policies import ALL_PORTS, LAB, after, built, carried_out, device, nat, plan, router

NS = router().ns


def on_wan(kernel: Kernel, ns: str = NS) -> list[str]:
    """The addresses of a router's uplink."""
    return sorted(str(address) for address in kernel.namespaces[ns].links["wan"].addresses)


def test_addresses_of_a_pool_are_the_uplinks_and_no_route_leads_to_them() -> None:
    before = built(LAB)
    kernel = carried_out(plan(LAB, nat(ALL_PORTS)), before)
    pool = ["26.0.0.3/32", "26.0.0.4/32"]
    assert on_wan(kernel) == sorted([*on_wan(before), *pool])
    for ns in ("ix", NS):
        assert kernel.namespaces[ns].routes == before.namespaces[ns].routes


def test_addresses_that_a_pool_loses_are_taken_from_the_uplink() -> None:
    new = after(LAB, nat(ALL_PORTS))
    assert on_wan(carried_out(between(new, LAB), built(new))) == on_wan(built(LAB))
    wider = after(new, device("four"))
    back = carried_out(between(wider, new), built(wider))
    assert on_wan(back) == on_wan(built(new))


def test_addresses_of_a_pool_stay_while_another_nat_has_no_use_for_them() -> None:
    """Nobody else gets them: what was given out stays so."""
    layout = after(LAB, nat(ALL_PORTS), nat("home"))
    assert on_wan(built(layout)) == on_wan(built(after(LAB, nat(ALL_PORTS))))


def test_a_pool_is_there_before_anything_is_translated_to_it() -> None:
    kinds = [type(command) for command in plan(LAB, nat(ALL_PORTS)) if isinstance(command, Ip | Nft)]
    assert kinds == sorted(kinds, key=[Ip, Nft].index) and {*kinds} == {Ip, Nft}


_BEHIND_AN_ISP = """
[[router]]
name = "isp"
preset = "datacenter"
[[router]]
name = "cgn"
upstream = "isp"
nat = { port_allocation = "block:64512" }
MTU
[[router]]
name = "elsewhere"
preset = "datacenter"
[device.one.eth0]
gateway = "cgn"
[device.two.eth0]
gateway = "cgn"
[device.far.eth0]
gateway = "elsewhere"
[device.near.eth0]
gateway = "isp"
"""
BEHIND_AN_ISP = layout_of(_BEHIND_AN_ISP.replace("MTU", ""))
BELOW_A_SMALL_MTU = layout_of(_BEHIND_AN_ISP.replace("MTU", "mtu = 1400"))


@pytest.mark.parametrize("layout", [BEHIND_AN_ISP, BELOW_A_SMALL_MTU], ids=["usual mtu", "small mtu"])
@pytest.mark.parametrize("start", ["far", "ix", "isp", "near"])
def test_addresses_of_a_pool_are_reached_from(start: str, layout: Layout) -> None:
    kernel = built(layout)
    cgn = router(layout, "cgn")
    (address,) = layout.policy(cgn).pool
    assert cgn.uplink and owner(kernel, cgn.uplink.addresses[0].ip, start) == "cgn"
    assert owner(kernel, address, start) == "cgn"


def test_where_the_uplink_has_an_mtu_of_its_own_the_router_above_knows_it_of_the_pool_too() -> None:
    for layout, expected in ((BEHIND_AN_ISP, None), (BELOW_A_SMALL_MTU, (None, "lan", 1400))):
        cgn = router(layout, "cgn")
        assert cgn.uplink
        outsides = [cgn.uplink.addresses[0].ip, *layout.policy(cgn).pool]
        assert len(outsides) == 2
        routes = built(layout).namespaces["isp"].routes
        assert [routes.get(ip_network(address)) for address in outsides] == [expected] * 2
