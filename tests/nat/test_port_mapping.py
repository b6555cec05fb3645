"""Hosts behind a home router map ports on it by UPnP, NAT-PMP and PCP, and strangers get in there."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import pytest
import trio

import patchbay
from patchbay.model.nat import NAT_PRESETS
from patchbay.plan.port_mapping import HTTP_PORT
from tests.nat import talk
from tests.nat.asking import (
    INSIDE,
    LAB,
    OUTSIDE,
    WITNESS,
    Client,
    NatPmp,
    Pcp,
    Upnp,
    gateway,
    is_shut,
    mapping_lab,
    reached,
    serving,
    told,
)
from tests.patience import DEADLINE, await_until

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("proto", ["udp", "tcp"])
@pytest.mark.parametrize("client", [Upnp(), NatPmp(), Pcp()], ids=["upnp", "nat-pmp", "pcp"])
async def test_a_mapped_port_lets_any_remote_endpoint_in_until_it_is_deleted(
    client: Client, proto: str
) -> None:
    async with mapping_lab() as lab:
        laptop, home = lab.device("laptop"), lab.router("home")
        async with serving(laptop):
            await NatPmp().map(laptop, "udp", outside=WITNESS, inside=WITNESS)
            assert await is_shut(lab, proto, OUTSIDE)
            assert await client.map(laptop, proto) == (str(home.ip), OUTSIDE)
            assert await reached(lab, proto, OUTSIDE) == "laptop"
            other = {"udp": "tcp", "tcp": "udp"}[proto]
            assert await is_shut(lab, other, OUTSIDE)
            await client.unmap(laptop, proto)
            assert await is_shut(lab, proto, OUTSIDE)


async def test_the_gateway_is_found_by_multicast_and_tells_its_address() -> None:
    async with mapping_lab() as lab:
        out = await told(lab.device("laptop"), "upnpc", "-s")
        assert f"desc: http://{gateway(lab.device('laptop'))}:{HTTP_PORT}/rootDesc.xml" in out
        assert f"ExternalIPAddress = {lab.router('home').ip}" in out
        assert "Status : Connected" in out


async def test_a_router_with_a_documentation_address_grants_no_ports() -> None:
    async with mapping_lab({**LAB, "addresses": "documentation"}) as lab:
        assert "network failure" in await NatPmp().ask(lab.device("laptop"))


async def test_the_second_host_that_wants_a_port_is_refused_or_gets_another() -> None:
    async with mapping_lab() as lab:
        laptop, phone = lab.device("laptop"), lab.device("phone")
        async with serving(laptop, phone):
            await Upnp().map(laptop, "udp")
            out = await Upnp().ask(phone, "-a", phone.ip, INSIDE, OUTSIDE, "udp")
            assert "failed with code 718 (ConflictInMappingEntry)" in out
            assert "606" in await Upnp().ask(phone, "-d", OUTSIDE, "udp")
            for client in (NatPmp(), Pcp()):
                assert (await client.map(phone, "udp"))[1] == OUTSIDE + 1
                assert await reached(lab, "udp", OUTSIDE) == "laptop"
                assert await reached(lab, "udp", OUTSIDE + 1) == "phone"
                await client.unmap(phone, "udp")


async def test_a_mapping_ends_with_its_lifetime() -> None:
    async with mapping_lab() as lab:
        laptop = lab.device("laptop")
        async with serving(laptop):
            await NatPmp().map(laptop, "udp", outside=WITNESS, inside=WITNESS)

            async def ends_in_time() -> bool:
                """False: the mapping was open for too long, or the machine was too slow to tell."""
                begun = trio.current_time()
                await NatPmp().map(laptop, "tcp", lifetime=2)
                await trio.sleep(1)  # half of the lifetime
                outside = (str(lab.router("home").ip), OUTSIDE)
                in_time = await talk.connect(lab.device("stranger"), outside, before=begun + 1.5)
                await await_until(partial(is_shut, lab, "tcp", OUTSIDE))
                return in_time and trio.current_time() < begun + 4

            await await_until(ends_in_time)


async def test_mappings_outlive_a_change_of_the_firewall() -> None:
    async with mapping_lab() as lab:
        laptop, home = lab.device("laptop"), lab.router("home")
        async with serving(laptop):
            await NatPmp().map(laptop, "tcp")
            for firewall in ("none", "corporate", "block-inbound"):
                await home.set_firewall(firewall)
                assert await reached(lab, "tcp", OUTSIDE) == "laptop"


@pytest.mark.parametrize("proto", ["udp", "tcp"])
@pytest.mark.parametrize("nat", [nat.value for nat in NAT_PRESETS])
async def test_behind_each_nat_a_mapped_port_lets_any_remote_endpoint_in(nat: str, proto: str) -> None:
    async with mapping_lab() as lab:
        laptop, home = lab.device("laptop"), lab.router("home")
        async with serving(laptop):
            await home.set_nat_mode(nat)
            await NatPmp().map(laptop, proto)
            for _ in range(3):
                assert await reached(lab, proto, OUTSIDE) == "laptop"


@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_behind_each_kind_of_nat_a_mapped_port_lets_any_remote_endpoint_in(proto: str) -> None:
    async with mapping_lab() as lab, serving(lab.device("laptop")):
        for kind in talk.CLASSES.values():
            await lab.router("home").set_nat_mode(kind)
            await NatPmp().map(lab.device("laptop"), proto)
            for _ in range(3):
                assert await reached(lab, proto, OUTSIDE) == "laptop"


# -- what the NAT makes of it


async def come_in(net: talk.Net, inside: talk.Inside) -> None:
    """The stranger comes in by the mapped port, and is answered."""
    with trio.fail_after(DEADLINE):
        at = (str(net.routers[0].ip), OUTSIDE)
        if inside.protocol == "udp":
            with talk.udp(net.stranger) as sock:
                await sock.sendto(b"?", at)
                _, sender = await talk.hear(inside.udp)
                await inside.udp.sendto(b"!", sender)
                assert (await talk.hear(sock)) == (b"!", at)
            return
        assert inside.listener
        with talk.tcp(net.stranger) as sock:
            await sock.connect(at)
            accepted, _ = await inside.listener.accept()
            with accepted:
                await accepted.send(b"!")
                assert await sock.recv(1) == b"!"


@pytest.mark.parametrize("proto", ["udp", "tcp"])
@pytest.mark.parametrize("nat", ["home", "full-cone", "address-restricted"])
async def test_the_mapped_port_is_from_then_on_the_one_towards_everybody(nat: str, proto: str) -> None:
    async with talk.net() as net:
        laptop, phone = await net.add_nat(nat, port_mapping=True)
        inside, other = talk.Inside(laptop, proto, INSIDE), talk.Inside(phone, proto, OUTSIDE)
        await NatPmp().map(laptop, proto)
        await come_in(net, inside)
        for server in net.endpoints:
            assert (await inside.seen_by(server))[1] == OUTSIDE
            assert (await other.seen_by(server))[1] != OUTSIDE


@pytest.mark.parametrize("nat", ["corporate", "cgnat"])
async def test_where_ports_are_not_preserved_a_mapped_port_is_for_flows_from_outside_alone(
    nat: str,
) -> None:
    async with talk.net() as net:
        (laptop,) = await net.add_nat(nat, hosts=1, port_mapping=True)
        inside = talk.Inside(laptop, "udp", INSIDE)
        await NatPmp().map(laptop, "udp")
        for _ in range(2):
            await come_in(net, inside)
            for server in net.endpoints:
                assert (await inside.seen_by(server))[1] != OUTSIDE


# -- carriers, and IPv6


CARRIER = {
    "router": [
        {"name": "isp", "preset": "isp-cgnat"},
        {"name": "behind", "preset": "home", "upstream": "isp", "port_mapping": True},
    ],
    "device": {"tablet": {"eth0": {"gateway": "behind"}}},
}


async def test_a_router_behind_a_carriers_nat_grants_nothing() -> None:
    async with mapping_lab(CARRIER) as lab:
        tablet, no_resources = lab.device("tablet"), 8
        out = await Upnp().ask(tablet, "-a", tablet.ip, INSIDE, OUTSIDE, "udp")
        assert "ExternalIPAddress = \n" in out
        assert "failed with code 501 (Action Failed)" in out
        assert "network failure" in await NatPmp().ask(tablet)
        answer = await Pcp().ask(tablet, "udp", 600)
        assert (answer[1], answer[3]) == (129, no_resources)


async def test_inside_hosts_open_their_ipv6_ports_in_the_firewall() -> None:
    async with mapping_lab() as lab:
        laptop, home = lab.device("laptop"), lab.router("home")
        url = f"http://[{home.downstream_gw_v6}]:{HTTP_PORT}/rootDesc.xml"
        argv = ("upnpc", "-6", "-u", url, "-A", "", 0, laptop.ip6, INSIDE, "udp", 600)
        plain = lab.device("stranger").socket(socket.AF_INET6, socket.SOCK_DGRAM)
        async with laptop.reflector((str(laptop.ip6), INSIDE)):
            with trio.socket.from_stdlib_socket(plain) as sock:
                await sock.connect((str(laptop.ip6), INSIDE))
                await sock.send(b"before")
                assert "Pinhole ID" in await told(laptop, *argv)
                await sock.send(b"after")
                assert await sock.recv(100) == b"after"
                await home.flush_nat_state()
                await sock.send(b"forgotten")
                assert "Pinhole ID" in await told(laptop, *argv)
                await sock.send(b"again")
                assert await sock.recv(100) == b"again"


# -- where it cannot be


NO_NAT = "the router has no NAT, whose ports could be mapped; accepted: one with a `nat`"
NO_IPV4 = "the router has no IPv4 (ip_support), whose ports could be mapped"


@pytest.mark.parametrize(
    ("router", "text"),
    [
        ({"preset": "datacenter"}, f"router.r.port_mapping: {NO_NAT}"),
        ({"ip_support": "v6-only"}, f"router.r.port_mapping: {NO_IPV4}"),
        ({"preset": "home", "port_mapping": "yes"}, "port_mapping: found 'yes'; accepted: true or false"),
    ],
)
async def test_a_router_without_ipv4_or_nat_has_no_ports_to_map(router: dict[str, Any], text: str) -> None:
    async with patchbay.open_lab() as lab:
        with pytest.raises(patchbay.SpecError) as caught:
            await lab.add_router("r", **{"port_mapping": True, **router})
        assert [str(problem) for problem in caught.value.problems] == [text]
        assert not (await lab.add_router("r", preset="home")).port_mapping
