"""`reflector` and `probe_udp_mapping`: what the other side sees."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio

import patchbay
from tests.kernel.labs import HOME, home_lab
from tests.patience import DEADLINE

pytestmark = pytest.mark.kernel


async def test_a_device_behind_a_nat_learns_its_outside_endpoint() -> None:
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


async def test_one_port_or_socket_can_be_probed_towards_several_servers() -> None:
    spec: dict[str, Any] = {
        **HOME,
        "router": [dict(HOME["router"][0]), {**HOME["router"][1], "nat": "corporate"}],
    }
    async with patchbay.open_lab(HOME) as home, patchbay.open_lab(spec) as office:
        for lab, is_the_same in ((home, True), (office, False)):
            laptop, server = lab.device("laptop"), lab.device("server")
            async with server.reflector(7000) as first, server.reflector(7001) as second:
                probe = laptop.probe_udp_mapping
                ports = [(await probe(server, port=40000))[1] for server in (first, second)]
                assert (ports[0] == ports[1]) is is_the_same
                with laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    ports = [(await probe(server, socket=sock))[1] for server in (first, second)]
                    assert (ports[0] == ports[1]) is is_the_same
                    sock.settimeout(DEADLINE)
                    sock.sendto(b"hello", first)
                    assert await trio.to_thread.run_sync(sock.recv, 9) == b"hello"
                with laptop.enter(), trio.socket.socket(type=socket.SOCK_DGRAM) as wrapped:
                    ports = [(await probe(server, socket=wrapped))[1] for server in (first, second)]
                    assert (ports[0] == ports[1]) is is_the_same
                with laptop.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
                    taken.bind(("0.0.0.0", 40001))
                    with pytest.raises(OSError, match="Address already in use"):
                        await probe(first, port=40001)
                    with pytest.raises(ValueError, match="either `port` or `socket`"):
                        await probe(first, port=1, socket=taken)


async def test_what_is_no_stun_comes_back_as_it_is() -> None:
    async with home_lab() as lab:
        server, laptop = lab.device("server"), lab.device("laptop")
        async with server.reflector(7000) as reflector:
            with laptop.enter():
                sock = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
            for data in (b"hello", b"", bytes(20)):
                await sock.sendto(data, reflector)
                assert await sock.recvfrom(100) == (data, reflector)


async def test_a_probe_without_an_answer_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchbay.lab.reflector._FIRST_WAIT", 0.01)
    async with home_lab() as lab:
        with pytest.raises(trio.TooSlowError, match=r"55\.0\.0\.2 port 9"):
            await lab.device("laptop").probe_udp_mapping((str(lab.device("server").ip), 9))


async def test_an_exception_of_a_reflectors_block_leaves_it_as_itself() -> None:
    with pytest.raises(KeyError):
        async with patchbay.open_lab() as lab:
            dc = await lab.add_router("dc", preset="datacenter")
            device = await lab.add_device("d", uplink=dc)
            async with device.reflector():
                raise KeyError("mine")
