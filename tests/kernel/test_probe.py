"""`reflector` and `probe_udp_mapping`: what the other side sees."""

from __future__ import annotations

import pytest
import trio

import patchbay
from tests.kernel.labs import home_lab

pytestmark = pytest.mark.kernel


async def test_a_device_behind_a_nat_is_told_its_outside_endpoint() -> None:
    async with home_lab() as lab:
        server, laptop = lab.device("server"), lab.device("laptop")
        async with server.reflector() as reflector:
            ip, port = await laptop.probe_udp_mapping(reflector)
            assert ip == str(lab.router("home").uplink_ip)
            assert 1024 <= port <= 65535
            # Without a NAT it is its own; by IPv6 too.
            assert (await server.probe_udp_mapping(reflector))[0] == str(server.ip)
        async with server.reflector((str(server.ip6), 0)) as reflector:
            assert (await laptop.probe_udp_mapping(reflector))[0] == str(laptop.ip6)


async def test_what_is_no_stun_comes_back_as_it_is() -> None:
    async with home_lab() as lab:
        server, laptop = lab.device("server"), lab.device("laptop")
        async with server.reflector(7000) as reflector:
            with laptop.enter():
                sock = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
            for data in (b"hello", b"", bytes(20)):
                await sock.sendto(data, reflector)
                assert await sock.recvfrom(100) == (data, reflector)


async def test_a_probe_that_nobody_answers_says_whom_it_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchbay.lab.reflector._FIRST_WAIT", 0.01)
    async with home_lab() as lab:
        with pytest.raises(trio.TooSlowError, match=r"198\.18\.0\.2 port 9"):
            await lab.device("laptop").probe_udp_mapping((str(lab.device("server").ip), 9))


async def test_an_exception_of_a_reflectors_block_leaves_it_as_itself() -> None:
    with pytest.raises(KeyError):
        async with patchbay.open_lab() as lab:
            dc = await lab.add_router("dc", preset="datacenter")
            device = await lab.add_device("d", uplink=dc)
            async with device.reflector():
                raise KeyError("mine")
