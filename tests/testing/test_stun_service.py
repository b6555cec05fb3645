"""`stun = true` on a device: other people's clients learn their address from it."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio

import patchbay
from patchbay.change import RemoveDevice
from patchbay.services import stun_messages as stun
from tests.kernel.inside import processes_of
from tests.patience import DEADLINE, await_until
from tests.processes import run

pytestmark = pytest.mark.kernel

LAB = """
[[router]]
name = "dc"
preset = "datacenter"
[[router]]
name = "other"
preset = "datacenter"
[[router]]
name = "home"
preset = "home"
[device.server]
stun = true
[device.server.eth0]
gateway = "dc"
[device.server.eth1]
gateway = "other"
[device.laptop.eth0]
gateway = "home"
[device.peer.eth0]
gateway = "dc"
"""


@pytest.fixture
def lab_file(tmp_path: Path) -> Path:
    file = tmp_path / "lab.toml"
    file.write_text(LAB)
    return file


async def reflexive(client: patchbay.Device, server: object, version: int) -> str:
    """Return what coturn's client learns of its own address."""
    own = client.ip if version == 4 else client.ip6
    command = ["timeout", f"{DEADLINE:g}", "turnutils_stunclient", "-L", str(own), str(server)]
    done = await client.run(command, capture_stdout=True)
    found = re.search(r"UDP reflexive addr: \[?([0-9a-f:.]+?)\]?:\d+$", done.stdout.decode(), re.MULTILINE)
    assert found, done.stdout
    return found[1]


@pytest.mark.ordinary
async def test_a_client_behind_a_nat_learns_its_outside_address_at_every_address_of_the_server(
    lab_file: Path,
) -> None:
    async with patchbay.open_lab(lab_file) as lab:
        laptop, server = lab.device("laptop"), lab.device("server")
        for iface in server.ifaces:
            assert await reflexive(laptop, iface.ip, 4) == str(lab.router("home").uplink_ip)
            assert ip_address(await reflexive(laptop, iface.ip6, 6)) == laptop.ip6


def ask(host: str, message: bytes, *, stream: bool) -> tuple[bytes, tuple[str, int], tuple[str, int]]:
    """Send a message in two pieces by TCP, or in one by UDP; return the answer and both endpoints."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(socket.getaddrinfo(host, 3478)[0][4])
        for piece in (message[:7], message[7:]) if stream else (message,):
            sock.sendall(piece)
        return sock.recv(2048), sock.getsockname()[:2], sock.getpeername()[:2]


@pytest.mark.parametrize("stream", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("version", [4, 6])
async def test_it_answers_binding_requests_and_refuses_what_takes_another_address(
    lab_file: Path, version: int, stream: bool
) -> None:
    async with patchbay.open_lab(lab_file) as lab:
        server, client = lab.device("server"), lab.device("laptop")
        host, one = str(server.ip if version == 4 else server.ip6), os.urandom(12)
        answer, own, peer = await client.call(
            lambda: ask(host, stun.encode(stun.Request(one)), stream=stream)
        )
        seen = (str(lab.router("home").uplink_ip), own[1]) if version == 4 else own
        decoded = stun.decode(answer)
        assert isinstance(decoded, stun.Response)
        assert (decoded.mapped[0], decoded.origin, decoded.other) == (seen[0], peer, None)
        change = stun.encode(stun.Request(one, change_port=True))
        refused = (await client.call(lambda: ask(host, change, stream=stream)))[0]
        assert stun.decode(refused) == stun.Refusal(one, 420, (0x0003,))
        other = (await client.call(lambda: ask(host, b"GET / HTTP/1.1\r\n\r\n..", stream=True)))[0]
        assert other == b""


async def test_a_link_local_address_of_the_server_answers_too(lab_file: Path) -> None:
    async with patchbay.open_lab(lab_file) as lab:
        scoped = f"{lab.device('server').iface('eth0').ll6}%eth0"
        request = stun.encode(stun.Request(os.urandom(12)))
        answer, own, _ = await lab.device("peer").call(lambda: ask(scoped, request, stream=False))
        decoded = stun.decode(answer)
        assert isinstance(decoded, stun.Response)
        assert decoded.mapped == (str(lab.device("peer").iface("eth0").ll6), own[1])


async def test_the_answer_goes_to_the_port_that_the_request_names(lab_file: Path) -> None:
    async with patchbay.open_lab(lab_file) as lab:
        server, client = lab.device("server"), lab.device("peer")
        request = stun.encode(stun.Request(os.urandom(12), response_port=4000))

        def ask_for_another() -> bool:
            with (
                socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one,
                socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other,
            ):
                other.bind(("::", 4000))
                other.settimeout(DEADLINE)
                other.connect((host, 3478))
                one.sendto(request, (host, 3478))
                return isinstance(stun.decode(other.recv(2048)), stun.Response)

        host = str(server.ip6)
        assert await client.call(ask_for_another)


async def test_a_killed_server_is_reported_and_a_removed_device_ends_its_server(lab_file: Path) -> None:
    async with patchbay.open_lab(lab_file) as lab:
        (process,) = processes_of(lab, "stun_server")
        await lab.apply(RemoveDevice("server"))

        async def ended() -> bool:
            return not processes_of(lab, "stun_server")

        await await_until(ended)
    with pytest.raises(patchbay.ServiceLostError, match=r"STUN server of device 'server' ended \(killed\?\)"):
        async with patchbay.open_lab(lab_file) as lab:
            (process,) = processes_of(lab, "stun_server")
            os.kill(process, signal.SIGKILL)
            async for event in lab.events():
                if event.kind == "service_lost":
                    assert (event.fields["service"], event.fields["device"]) == ("stun", "server")
                    break


async def test_a_port_that_is_taken_is_an_error_of_the_call() -> None:
    async with patchbay.open_lab() as lab:
        router = await lab.add_router("dc", preset="datacenter")
        device = await lab.add_device("plain", uplink=router)
        assert not lab.state()["devices"]["plain"]["stun"]
        await lab.add_device("server", uplink=router, stun=True)
        assert lab.state()["devices"]["server"]["stun"]
        await lab.device("server").listening(3478, timeout=0)
        await lab.device("server").listening(3478, protocol="udp", timeout=0)
        assert device.ip


async def test_a_lab_that_is_rebuilt_from_its_trace_serves_stun_too(lab_file: Path, tmp_path: Path) -> None:
    async with patchbay.open_lab(lab_file) as lab:
        script = tmp_path / "lab.sh"
        script.write_text(lab.trace())
    look = ["nsenter", "--net=/run/netns/server", "ss", "-Htuln", "sport = :3478"]
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = await trio.to_thread.run_sync(partial(run, ["sh", script, *look], env=env, text=True))
    assert done.stdout.count(":3478") == 4, done.stderr
