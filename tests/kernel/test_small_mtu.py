"""IPv4 works below 1280 bytes, where interfaces have no IPv6."""

from __future__ import annotations

import json

import pytest

import patchbay
from tests.kernel.labs import reaches

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("mtu", [68, 576, 1279])
@pytest.mark.parametrize("link", [None, {"latency_ms": 1}], ids=["bare", "delayed"])
async def test_a_router_and_a_device_without_ipv6_have_any_mtu_of_ipv4(
    mtu: int, link: dict[str, float] | None
) -> None:
    async with patchbay.open_lab() as lab:
        router = await lab.add_router("router", mtu=mtu, nat="home", downlink=link)
        device = await lab.add_device("device", uplink=router, mtu=mtu, link=link)
        below = await lab.add_router("below", upstream=router, mtu=mtu)
        inner = await lab.add_device("inner", uplink=below)
        # 20 bytes of IP and 8 of ICMP: a packet as large as the MTU, and one that is cut in pieces.
        for size in (mtu - 28, mtu + 400):
            assert await reaches(device, lab.ix.ip, "-M", "dont", "-s", str(size))
            assert await reaches(inner, lab.ix.ip, "-M", "dont", "-s", str(size))
        done = await router.run(["cat", "/sys/class/net/wan/mtu"], capture_stdout=True)
        assert int(done.stdout) == mtu


async def test_a_route_keeps_its_mtu_when_another_device_lowers_that_of_the_lan() -> None:
    async with patchbay.open_lab() as lab:
        router = await lab.add_router("cluster", preset="datacenter")
        jumbo = await lab.add_device("jumbo", uplink=router, mtu=9000)
        await lab.add_device("usual", uplink=router)
        for version, address in ((4, jumbo.ip), (6, jumbo.ip6)):
            routes = ["ip", f"-{version}", "-j", "route", "show", str(address)]
            (route,) = json.loads((await router.run(routes, capture_stdout=True)).stdout)
            assert route["metrics"] == [{"mtu": 9000}]
