"""What a lab is: connected, isolated, addressed, and told of."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

import patchbay
from patchbay.lab.lab import Lab
from patchbay.record.journal import read_records
from tests.kernel.labs import HOME, PING, home_lab, reaches, serve_echo
from tests.patience import DEADLINE, await_until

pytestmark = pytest.mark.kernel


async def first_answers(lab: Lab) -> list[float]:
    """Return after how many ms the first packet to the server was answered, in both families."""
    server, times = lab.device("server"), []
    for target in (server.ip, server.ip6):
        argv = ["ping", "-n", "-c1", "-W5", str(target)]
        done = await lab.device("laptop").run(argv, check=False, capture_stdout=True)
        found = re.search(rb"time=([\d.]+) ms", done.stdout)
        times.append(float(found[1]) if found else math.inf)
    return times


async def test_first_packets_arrive_at_once_in_both_families() -> None:
    """A first packet that waits for an address, or for a neighbour to be asked again, takes a second or two.

    In every lab: so one lab without such a wait is enough.
    """

    async def do_in_a_new_lab() -> bool:
        async with home_lab() as lab:
            return max(await first_answers(lab)) < 500

    await await_until(do_in_a_new_lab)


async def test_bridges_carry_packets_when_the_call_that_made_them_returns() -> None:
    for _ in range(3):
        async with home_lab() as lab:
            for node in (lab.ix, *lab.routers):
                done = await node.run(["cat", "/sys/class/net/lan/operstate"], capture_stdout=True)
                assert done.stdout == b"up\n", node


@pytest.mark.ordinary
async def test_a_home_router_translates_and_lets_nothing_unsolicited_in() -> None:
    async with home_lab() as lab, trio.open_nursery() as nursery:
        home, laptop, server = lab.router("home"), lab.device("laptop"), lab.device("server")
        peers: list[Any] = []
        await nursery.start(server.task, partial(serve_echo, 80, peers=peers))
        with laptop.enter():
            stream = await trio.open_tcp_stream(str(server.ip), 80)
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
            await stream.aclose()
            stream = await trio.open_tcp_stream(str(server.ip6), 80)
            await stream.aclose()
        assert [peer[0] for peer in peers] == [str(home.uplink_ip), str(laptop.ip6)]
        assert not await reaches(server, laptop.ip)
        assert await reaches(server, home.uplink_ip)
        await nursery.start(laptop.task, serve_echo, 80)
        with contextlib.ExitStack() as stack:
            knocking = [
                stack.enter_context(knock(server, target, 80))
                for target in (home.uplink_ip, home.uplink_ip6, laptop.ip6)
            ]
            # An answer to the knocks would come before the answers to these.
            for family in ("ip", "ip6"):
                inside, outside = stack.enter_context(flow(laptop, server, family))
                send_back(outside, inside)
            assert not any(map(is_connected, knocking))
        nursery.cancel_scope.cancel()


def knock(node: patchbay.Node, target: Any, port: int) -> socket.socket:
    """Send a SYN, and do not wait for what comes of it."""
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    sock = node.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    assert sock.connect_ex((str(target), port)) == errno.EINPROGRESS
    return sock


def is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def flow(
    inside: patchbay.Node, outside: patchbay.Node, family: str = "ip"
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Open a UDP flow from the inside; yield both ends, each connected to what it sees of the other."""
    number = socket.AF_INET if family == "ip" else socket.AF_INET6
    with (
        inside.socket(number, socket.SOCK_DGRAM) as ours,
        outside.socket(number, socket.SOCK_DGRAM) as theirs,
    ):
        for sock in (ours, theirs):
            sock.settimeout(DEADLINE)
        theirs.bind((str(getattr(outside, family)), 7000))
        ours.connect(theirs.getsockname())
        ours.send(b"open")
        theirs.connect(theirs.recvfrom(100)[1])
        yield ours, theirs


def send_back(outside: socket.socket, inside: socket.socket) -> None:
    """Send a packet in by a flow, and one out again."""
    outside.send(b"in")
    assert inside.recv(100) == b"in"
    inside.send(b"out")
    assert outside.recv(100) == b"out"


async def test_the_inside_prefix_cannot_be_routed_to_from_the_uplink() -> None:
    async with patchbay.open_lab() as lab:
        nat = await lab.add_router("nat", nat="home")
        inside = await lab.add_device("inside", uplink=nat)
        neighbour = await lab.add_router("neighbour")
        await neighbour.run(["ip", "route", "add", str(nat.downstream_cidr), "via", str(lab.ix.ip)])
        await lab.ix.run(["ip", "route", "add", str(nat.downstream_cidr), "via", str(nat.uplink_ip)])
        with (
            flow(inside, neighbour) as (ours, theirs),
            inside.socket(type=socket.SOCK_DGRAM) as listener,
            neighbour.socket(type=socket.SOCK_DGRAM) as stray,
        ):
            listener.bind((str(inside.ip), 6000))
            listener.setblocking(False)
            stray.sendto(b"stray", (str(inside.ip), 6000))
            # This one comes the same way, later.
            send_back(theirs, ours)
            with pytest.raises(BlockingIOError):
                listener.recv(100)


async def test_an_unsolicited_packet_does_not_cost_an_inside_host_its_port() -> None:
    async with home_lab() as lab:
        home, laptop, server = lab.router("home"), lab.device("laptop"), lab.device("server")
        with server.socket(type=socket.SOCK_DGRAM) as peer, laptop.socket(type=socket.SOCK_DGRAM) as inside:
            peer.bind((str(server.ip), 7000))
            peer.settimeout(DEADLINE)
            peer.sendto(b"first", (str(home.uplink_ip), 6000))
            inside.bind((str(laptop.ip), 6000))
            inside.sendto(b"second", (str(server.ip), 7000))
            assert peer.recvfrom(100) == (b"second", (str(home.uplink_ip), 6000))


async def test_two_equal_labs_at_once_cannot_reach_each_other_or_the_host() -> None:
    with socket.socket() as on_host:
        on_host.bind(("127.0.0.1", 0))
        on_host.listen()
        async with (
            home_lab(label="same") as one,
            home_lab(label="same") as two,
            trio.open_nursery() as nursery,
        ):
            assert one.device("server").ip == two.device("server").ip
            await nursery.start(one.device("server").task, serve_echo, 8000)
            target = (str(one.device("server").ip), 8000)
            with one.device("laptop").enter():
                await (await trio.open_tcp_stream(*target)).aclose()
            with two.device("laptop").enter():
                with pytest.raises(OSError):
                    await trio.open_tcp_stream(*target)
                with pytest.raises(OSError):
                    await trio.open_tcp_stream("127.0.0.1", on_host.getsockname()[1])
            nursery.cancel_scope.cancel()


async def test_regions_route_the_routers_in_them() -> None:
    spec = {
        "region": {"eu": {}, "us": {}},
        "router": [
            {"name": "a", "preset": "datacenter", "region": "eu"},
            {"name": "b", "preset": "home", "region": "us"},
            {"name": "c", "preset": "datacenter"},
        ],
        "device": {
            name: {"eth0": {"gateway": router}} for name, router in (("da", "a"), ("db", "b"), ("dc", "c"))
        },
    }
    async with patchbay.open_lab(spec) as lab:
        for source in ("db", "dc"):
            for target in ("da", "dc"):
                assert await reaches(lab.device(source), lab.device(target).ip), (source, target)
                assert await reaches(lab.device(source), lab.device(target).ip6), (source, target)
        route = await lab.device("dc").run([*PING, "-R", str(lab.device("da").ip)], capture_stdout=True)
        assert str(lab.region("eu").downstream_gw).encode() in route.stdout
        assert [router.name for router in lab.region("eu").routers] == ["a"]


async def test_a_small_mtu_is_reported_to_the_sender() -> None:
    async with patchbay.open_lab() as lab:
        dc = await lab.add_router("dc", preset="datacenter")
        far = await lab.add_router("far", preset="datacenter", mtu=1400)
        server = await lab.add_device("server", uplink=dc)
        phone = await lab.add_device("phone", uplink=far, mtu=1300)
        assert await reaches(server, phone.ip, "-s", "1200", "-M", "do")
        done = await server.run(
            [*PING, "-s", "1450", "-M", "do", str(phone.ip)], check=False, capture_stdout=True
        )
        assert b"mtu = 1400" in done.stdout
        done = await server.run(
            [*PING, "-s", "1350", "-M", "do", str(phone.ip)], check=False, capture_stdout=True
        )
        assert b"mtu = 1300" in done.stdout
        # Fresh: what the kernel has learned of a path before would hide what it is told now.
        far_away = await lab.add_device("far-away", uplink=dc)
        done = await far_away.run(
            [*PING, "-s", "1450", "-M", "do", str(far.uplink_ip)],
            check=False,
            capture_stdout=True,
        )
        assert b"mtu = 1400" in done.stdout
        done = await phone.run(["cat", "/sys/class/net/eth0/mtu"], capture_stdout=True)
        assert done.stdout == b"1300\n"


async def test_the_kernel_has_the_addresses_that_the_handles_tell() -> None:
    async with home_lab() as lab:
        for node in (lab.device("laptop"), lab.router("home"), lab.device("server")):
            done = await node.run(["ip", "-j", "address"], capture_stdout=True)
            by_name = {link["ifname"]: link for link in json.loads(done.stdout)}
            for iface in node.ifaces:
                link = by_name[iface.name]
                assert link["address"] == iface.mac
                assert link["mtu"] == iface.mtu
                found = {address["local"] for address in link["addr_info"]}
                assert found == {str(iface.ip), str(iface.ip6), str(iface.ll6)}
        addresses = {"SERVER": ("55.0.0.2", "2d00:0:1::2"), "LAPTOP": ("10.0.0.2", "fd00::2")}
        assert lab.env_vars() == {
            f"{prefix}_{device}{iface}": given[prefix == "PATCHBAY_IP6"]
            for device, given in addresses.items()
            for iface in ("", "_ETH0")
            for prefix in ("PATCHBAY_IP", "PATCHBAY_IP6", "NETSIM_IP")
        }


async def test_look_ups_of_unknown_names_suggest_close_ones() -> None:
    async with home_lab() as lab:
        with pytest.raises(KeyError, match="did you mean 'laptop'"):
            lab.device("labtop")
        with pytest.raises(KeyError, match="unknown router"):
            lab.router("laptop")
        with pytest.raises(KeyError, match="it has: eth0"):
            lab.device("laptop").iface("wlan0")


async def test_a_batch_is_one_plan_and_holds_other_tasks_back() -> None:
    order: list[str] = []

    async def other(lab: Lab) -> None:
        await lab.add_router("other")
        order.append("other")

    async with patchbay.open_lab() as lab, trio.open_nursery() as nursery:
        async with lab.batch():
            home = await lab.add_router("home", preset="home")
            laptop = await lab.add_device("laptop", uplink=home)
            nursery.start_soon(other, lab)
            await trio.testing.wait_all_tasks_blocked()
            order.append("batch")
            assert len({record.change for record in lab.commands}) == 1
        assert await reaches(laptop, lab.ix.ip)
    assert order == ["batch", "other"]


async def test_events_come_from_the_first_on_and_end_with_the_lab() -> None:
    kinds: list[str] = []

    async def follow(lab: Lab) -> None:
        async for event in lab.events():
            kinds.append(event.kind)

    async with trio.open_nursery() as nursery, home_lab() as lab:
        nursery.start_soon(follow, lab)
        await lab.device("laptop").run(["true"])
    assert kinds[0] == "lab_created"
    assert kinds[-2:] == ["lab_stopping", "lab_stopped"]
    assert [k for k in kinds if k.endswith("_added")] == ["router_added"] * 2 + ["device_added"] * 2
    assert {"command_started", "command_exited"} <= set(kinds)


@pytest.mark.ordinary
async def test_a_run_folder_holds_events_commands_state_and_output(tmp_path: Path) -> None:
    async with home_lab(outdir=tmp_path, label="a lab/é") as lab:
        lab.dns_entry("x.lab", "192.0.2.1")
        await lab.device("laptop").run(
            ["sh", "-c", "echo out; echo err >&2"], capture_stdout=True, capture_stderr=True
        )
        folder = lab.run_dir
        state = lab.state()
        commands = len(lab.commands)
    assert folder is not None
    assert folder.parent == tmp_path
    assert folder.name.endswith("-a-lab-é")
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["opid"] for event in events] == list(range(1, len(events) + 1))
    assert json.loads((folder / "state.json").read_text()) == {**state, "status": "stopped"}
    assert len((folder / "commands.jsonl").read_text().splitlines()) == commands
    assert (folder / "nodes/laptop/stdout.log").read_text() == "out\n"
    assert (folder / "nodes/laptop/stderr.log").read_text() == "err\n"


@pytest.mark.ordinary
async def test_etc_hosts_and_resolv_conf_are_the_labs_own() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        host = Path("/etc/hosts").read_bytes()
        await laptop.run(["true"])
        lab.dns_entry("later.lab", "192.0.2.9")
        lab.set_nameserver("192.0.2.53")
        laptop.set_nameserver("192.0.2.54")
        for node, server in ((laptop, b"192.0.2.54"), (lab.device("server"), b"192.0.2.53")):
            done = await node.run(["cat", "/etc/hosts", "/etc/resolv.conf"], capture_stdout=True)
            assert b"192.0.2.9 later.lab" in done.stdout
            assert b"nameserver " + server in done.stdout
        assert Path("/etc/hosts").read_bytes() == host
        with pytest.raises(patchbay.SpecError, match="host name"):
            lab.dns_entry("two words", "192.0.2.9")


async def test_names_with_odd_characters_survive_into_kernel_journal_and_trace(tmp_path: Path) -> None:
    name = "odd 'name' $HOME ünï"
    async with patchbay.open_lab(outdir=tmp_path / "a 'b' ü") as lab:
        router = await lab.add_router(name, preset="home")
        device = await lab.add_device("up", ifaces={"é0": router})
        assert await reaches(device, lab.ix.ip)
        assert await reaches(device, lab.ix.ip6)
        assert lab.router(name) is router
        assert f"# give router '{name}' its namespace\n" in lab.trace()
        assert any(name in record.why for record in lab.commands)
        folder = lab.run_dir
    assert folder
    with (folder / "commands.jsonl").open() as file:
        assert any(name in record.why for record in read_records(file))
    assert any(name in line for line in (folder / "events.jsonl").read_text().splitlines())


@pytest.mark.ordinary
async def test_a_spec_of_a_hundred_and_fifty_nodes_opens_and_answers(
    break_command: Callable[..., Any],
) -> None:
    spec = {
        "router": [{"name": f"r{n}", "preset": "home"} for n in range(5)],
        "device": {f"d{n}": {"count": 41, "eth0": {"gateway": f"r{n}"}} for n in range(5)},
    }
    async with patchbay.open_lab(spec) as lab:
        assert len(lab.devices) == 205
        for n in range(5):
            assert await reaches(lab.device(f"d{n}-40"), lab.ix.ip)
            assert await reaches(lab.device(f"d{n}-40"), lab.ix.ip6)
        done = await lab.device("d0-0").run(
            ["ip", "-j", "neigh", "show", "nud", "permanent"], capture_stdout=True
        )
        assert {entry["dst"] for entry in json.loads(done.stdout)} == {"10.0.0.1", "fd00::1"}


async def test_the_spec_may_be_a_file_a_dict_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a lab.toml"
    path.write_text('[[router]]\nname = "dc"\npreset = "datacenter"\n[device.server.eth0]\ngateway = "dc"\n')
    async with patchbay.open_lab(path) as lab:
        assert (lab.label, [device.name for device in lab.devices]) == ("a lab", ["server"])
    with pytest.raises(patchbay.SpecError, match="unknown router"):
        async with patchbay.open_lab({"device": {"x": {"eth0": {"gateway": "y"}}}}):
            pass
    with pytest.raises(patchbay.SpecError, match="deterministic"):
        async with patchbay.open_lab(HOME, ipv6="realistic"):
            pass


async def test_outdir_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHBAY_OUTDIR", str(tmp_path))
    async with patchbay.open_lab(label="env"):
        pass
    assert [path.name[-4:] for path in tmp_path.iterdir()] == ["-env"]
    assert os.listdir(tmp_path) != []
