"""The classifier, against networks whose ways are known."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import attrs
import pytest
import trio

import patchbay
from patchbay.model.nat import Behavior, Nat, NatConfig
from patchbay.services import stun_messages as stun
from patchbay.testing import StunServers, classify_nat, differences, predict, serve_stun
from tests.judges.coturn import options_of_this_version, until_answered
from tests.patience import await_until

pytestmark = pytest.mark.kernel

EI, AD, APD = Behavior


@attrs.frozen
class Net:
    """Two servers in a data center, and a device behind a router."""

    lab: patchbay.Lab
    servers: StunServers
    first: patchbay.Device
    second: patchbay.Device
    device: patchbay.Device


@contextlib.asynccontextmanager
async def network(link: Any = None, **router: Any) -> AsyncIterator[Net]:
    async with patchbay.open_lab() as lab:
        async with lab.batch():
            dc = await lab.add_router("dc", preset="datacenter")
            first = await lab.add_device("first", uplink=dc)
            second = await lab.add_device("second", uplink=dc)
            edge = await lab.add_router("edge", **router)
            device = await lab.add_device("device", uplink=edge, link=link)
        async with serve_stun(first, second) as servers:
            yield Net(lab, servers, first, second, device)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize("nat", [Nat.NONE, Nat.HOME], ids=str)
async def test_simple_problems_are_reported(nat: Nat, protocol: str) -> None:
    async with network(nat=nat) as net:
        report = await classify_nat(net.device, net.servers, protocol=protocol)
        assert differences(predict(nat, protocol), report) == []
        assert report.notes == ()
        assert report.local == str(net.device.ip)
        outside = net.device if nat is Nat.NONE else net.lab.router("edge")
        assert report.mapped == str(outside.ip)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_a_firewall_filters_without_a_nat(protocol: str) -> None:
    async with network(nat="none", firewall="block-inbound") as net:
        report = await classify_nat(net.device, net.servers, protocol=protocol)
        assert str(report) == "no NAT, address-and-port-dependent filtering"


# Of TCP, the kernel repeats a SYN after a second: what is lost twice is taken for filtered.
@pytest.mark.parametrize(("protocol", "loss"), [("udp", 8), ("tcp", 0)])
async def test_loss_and_a_long_path_change_nothing(protocol: str, loss: int) -> None:
    link = {"latency_ms": 60, "loss_pct": loss}
    async with network(link=link, nat=NatConfig(AD, AD, "random", hairpin=True)) as net:
        # By UDP 15 % of the round trips are lost. That all of 8 tries are is one in three million.
        report = await classify_nat(net.device, net.servers, protocol=protocol, tries=8)
        assert differences(predict(NatConfig(AD, AD, "random", hairpin=True)), report) == []
        assert report.rtt is not None
        assert report.rtt > 0.11


async def test_a_hairpinned_packet_comes_from_outside() -> None:
    async with network(nat=NatConfig(APD, AD, hairpin=True)) as net:
        report = await classify_nat(net.device, net.servers)
        assert report.hairpin_source is not None
        assert report.hairpin_source[0] == report.mapped
        untried = await classify_nat(net.device, net.servers, hairpin=False)
        assert untried.hairpin is None


async def finds_timeout(seconds: float, device: patchbay.Device, servers: Any) -> bool:
    """Measure it. False: the bounds are right but wide, because the machine is busy."""
    report = await classify_nat(device, servers, timeouts=True)
    assert report.udp_timeout is not None
    low, high = report.udp_timeout
    assert low <= seconds <= high
    return seconds - 0.5 < low and high < seconds + 1


@pytest.mark.parametrize("seconds", [1, 3])
async def test_how_long_an_idle_mapping_lasts_is_measured(seconds: int) -> None:
    async with network(nat=NatConfig(APD, APD, udp_timeout=seconds)) as net:
        await await_until(partial(finds_timeout, seconds, net.device, net.servers))


async def test_a_mapping_that_outlasts_the_measurement_is_reported_as_such() -> None:
    async with network(nat="home") as net:
        report = await classify_nat(net.device, net.servers, timeouts=True, longest=1.5)
        assert report.udp_timeout == (1.5, float("inf"))


async def test_a_report_notes_what_a_server_with_one_address_cannot_show() -> None:
    async with network(nat="home") as net:
        only, two = (str(net.first.ip), 4000), (str(net.second.ip), 4000)
        async with serve_stun(net.first, ports=(4000, 4001)), serve_stun(net.second, ports=(4000, 4001)):
            report = await classify_nat(net.device, only)
            assert (report.nat, report.mapping, report.filtering) == (True, None, None)
            assert [note.split(":")[0] for note in report.notes] == ["mapping", "filtering", "hairpin"]
            both = await classify_nat(net.device, [only, two])
            assert (both.mapping, both.filtering) == (EI, None)
            better = await classify_nat(net.device, [only, net.servers.first])
            assert (better.mapping, better.filtering, better.server) == (EI, APD, net.servers.first)


async def test_two_servers_of_one_address_tell_that_mappings_differ_but_not_why() -> None:
    async with network(nat="corporate") as net:
        async with serve_stun(net.first, ports=(4000, 4001)), serve_stun(net.second, ports=(4000, 4001)):
            report = await classify_nat(net.device, [(str(net.first.ip), 4000), (str(net.second.ip), 4000)])
            assert report.mapping is None
            assert "depends on the remote address" in report.notes[0]


async def test_where_nobody_answers_the_network_is_blocked() -> None:
    async with network(nat="home") as net:
        for protocol in ("udp", "tcp"):
            silent = (str(net.first.ip), 9)
            report = await classify_nat(net.device, silent, protocol=protocol, rto=0.05, tries=2)
            assert report.blocked
        unknown = await classify_nat(net.device, ("no.such.name", 3478))
        assert unknown.blocked
        assert "no address for no.such.name" in unknown.notes[0]
        wrongs: tuple[dict[str, Any], ...] = ({"protocol": "sctp"}, {"servers": []})
        for wrong in wrongs:
            with pytest.raises(ValueError, match=r"accepted: 'udp', 'tcp'|no server"):
                await classify_nat(net.device, **{"servers": net.servers, **wrong})


async def test_silence_of_a_server_that_could_not_answer_is_no_filtering() -> None:
    async with network(nat="home") as net:
        await net.lab.router("dc").run(["ip", "route", "add", "blackhole", f"{net.second.ip}/32"])
        report = await classify_nat(net.device, net.servers.first, rto=0.05)
        assert (report.mapping, report.filtering) == (None, None)
        assert f"the server's {net.second.ip} port 3479 does not answer" in report.notes[1]


async def test_a_server_that_passes_over_the_wish_for_another_address_opens_no_filter() -> None:
    async with network(nat="home") as net, trio.open_nursery() as nursery:
        with net.first.enter():
            sock = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        await sock.bind((str(net.first.ip), 5000))

        async def answer() -> None:
            while True:
                data, client = await sock.recvfrom(2000)
                request = stun.decode(data)
                assert isinstance(request, stun.Request)
                response = stun.Response(request.transaction, client, other=net.servers.endpoints[3])
                await sock.sendto(stun.encode(response), client)

        nursery.start_soon(answer)
        report = await classify_nat(net.device, (str(net.first.ip), 5000), rto=0.05)
        assert report.filtering is None
        assert "CHANGE-REQUEST" in report.notes[0]
        nursery.cancel_scope.cancel()


async def test_what_is_none_of_stun_is_not_an_answer() -> None:
    async with network(nat="none") as net, trio.open_nursery() as nursery:
        with net.first.enter():
            sock = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        await sock.bind((str(net.first.ip), 5000))

        async def echo() -> None:
            while True:
                await sock.sendto(*await sock.recvfrom(2000))

        nursery.start_soon(echo)
        # An echo of the request has its transaction id, and is no answer.
        report = await classify_nat(net.device, (str(net.first.ip), 5000), rto=0.02, tries=2)
        assert report.blocked
        nursery.cancel_scope.cancel()


async def test_an_exception_of_the_block_leaves_it_as_itself() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with network(nat="none"):
            raise KeyError("mine")


async def test_a_task_inside_a_node_needs_no_handle() -> None:
    async with network(nat="home") as net:
        with net.device.enter():
            report = await classify_nat(None, net.servers)
        assert report.local == str(net.device.ip)


async def test_another_server_tells_the_same() -> None:
    """coturn, with all of RFC 5780: OTHER-ADDRESS, CHANGE-REQUEST and RESPONSE-PORT."""
    config = NatConfig(EI, AD, hairpin=True, udp_timeout=2)
    async with network(nat=config) as net:
        other = await net.lab.add_router("other", preset="datacenter")
        uplinks: dict[str, patchbay.Router | str] = {"eth0": "dc", "eth1": other}
        server = await net.lab.add_device("coturn", ifaces=uplinks, default_via="eth0")
        addresses = [str(iface.ip) for iface in server.ifaces]
        argv = ["turnserver", "-n", "-S", "--no-tls", "--no-dtls", "--log-file", "stdout"]
        for address in addresses:
            argv += ["--listening-ip", address]
        argv += ["--pidfile", "/dev/null", *options_of_this_version()]
        async with server.open_process(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            await until_answered(server, *addresses)
            report = await classify_nat(net.device, (addresses[0], 3478))
            await await_until(partial(finds_timeout, 2, net.device, (addresses[0], 3478)))
        assert differences(predict(config), report) == []
