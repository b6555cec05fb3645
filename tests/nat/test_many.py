"""Many hosts, no ports left, and many changes under load."""

from __future__ import annotations

import itertools
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from attrs import evolve

import patchbay
from patchbay import Device, NatConfig
from patchbay.lab.node import Node
from patchbay.model.nat import NAT_PRESETS, Behavior, Nat
from tests.nat.talk import Endpoint, Inside, drain, endpoint_of, hear, knock, net, udp
from tests.patience import DEADLINE, await_until

pytestmark = pytest.mark.kernel

EI, AD, APD = Behavior
DEVICES, FLOWS = 200, 20


async def outside_of_flows(
    device: Device, servers: list[Endpoint], limit: trio.CapacityLimiter
) -> set[Endpoint]:
    """What the servers see of so many flows at once, spread over them. The mappings outlast the sockets."""
    async with limit:
        sockets = [udp(device) for _ in range(FLOWS)]
        try:
            for number, sock in enumerate(sockets):
                await sock.sendto(b"who am I?", servers[number % len(servers)])
            return {endpoint_of((await hear(sock))[0]) for sock in sockets}
        finally:
            for sock in sockets:
                sock.close()


async def test_two_hundred_devices_of_a_carrier_keep_out_of_each_others_ports() -> None:
    async with net() as world:
        # No mapping may expire before the last one is there to be compared with it.
        lasting = evolve(NAT_PRESETS[Nat.CGNAT], udp_timeout=3600)
        router = await world.lab.add_router("carrier", preset="isp-cgnat", nat=lasting)
        async with world.lab.batch():
            devices = [await world.lab.add_device(f"d{each}", uplink=router) for each in range(DEVICES)]
        limit = trio.CapacityLimiter(10)
        seen: dict[str, set[Endpoint]] = {}

        async def note(device: Device) -> None:
            seen[device.name] = await outside_of_flows(device, world.endpoints, limit)

        async with trio.open_nursery() as nursery:
            for device in devices:
                nursery.start_soon(note, device)
        assert all(len(each) == FLOWS for each in seen.values())
        assert len(set.union(*seen.values())) == DEVICES * FLOWS
        # Each device at one address (RFC 6888 REQ-2), within 1008 ports that no other has any of.
        assert all(len({ip for ip, _ in each}) == 1 for each in seen.values())
        blocks = sorted((min(ip for ip, _ in each), *extent(each)) for each in seen.values())
        assert {last - first < 1008 for _, first, last in blocks} == {True}
        for (ip, _, last), (next_ip, first, _) in itertools.pairwise(blocks):
            assert ip != next_ip or last < first


def extent(seen: set[Endpoint]) -> tuple[int, int]:
    ports = [port for _, port in seen]
    return min(ports), max(ports)


async def test_a_host_that_comes_changes_no_mapping_of_others() -> None:
    """Also where the NAT needs one more outside address for it."""
    async with net() as world:
        hosts = await world.add_nat(NatConfig(EI, EI, "block:32000"))
        router, ends = world.routers[0], [Inside(host, "udp", 5000) for host in hosts]
        outside = [await end.seen_by(world.endpoints[0]) for end in ends]
        newcomer = await world.lab.add_device("newcomer", uplink=router)
        # Before the old ones send again, and so would be known again.
        for end, mapped in zip(ends, outside, strict=True):
            with udp(world.stranger) as sock:
                await sock.sendto(b"hello", mapped)
                assert (await hear(end.udp))[0] == b"hello"
        assert [await end.seen_by(world.endpoints[3]) for end in ends] == outside
        another = await Inside(newcomer, "udp", 5000).seen_by(world.endpoints[0])
        assert another[0] not in {ip for ip, _ in outside}


@pytest.mark.ordinary
async def test_a_carrier_with_many_customers_forgets_them_and_goes_on() -> None:
    """More than one transaction of nft may be long, where there is no real root."""
    spec = {"router": [{"name": "dc", "preset": "datacenter"}, {"name": "isp", "preset": "isp-cgnat"}]}
    customers = {f"c{each}": {"eth0": {"gateway": "isp"}} for each in range(700)}
    async with patchbay.open_lab({**spec, "device": {"s": {"eth0": {"gateway": "dc"}}, **customers}}) as lab:
        isp, seen = lab.router("isp"), []
        async with lab.device("s").reflector() as reflector:
            for change in (
                isp.flush_nat_state,
                partial(isp.set_nat_mode, "home"),
                partial(isp.set_nat_mode, "cgnat"),
            ):
                await change()
                some = (lab.device(name) for name in ("c0", "c350", "c699"))
                seen.append([(await device.probe_udp_mapping(reflector))[0] for device in some])
        assert len(set(seen[0])) == 3
        assert seen[0] == seen[2]
        assert set(seen[1]) == {str(isp.uplink_ip)}


async def test_a_block_that_is_used_up_drops_new_flows_and_leaves_old_ones_alone() -> None:
    async with net() as world:
        hosts = await world.add_nat(NatConfig(EI, EI, "block:16", udp_timeout=3600))
        ends = [Inside(hosts[0], "udp") for _ in range(16)]
        ports = {(await end.seen_by(world.endpoints[0]))[1] for end in ends}
        assert len(ports) == 16  # every last one is found
        assert max(ports) - min(ports) == 15
        late = [udp(hosts[0]) for _ in range(4)]
        for sock in late:
            await sock.sendto(b"who am I?", world.endpoints[1])
        # The old ones have theirs, towards others too; and so has the neighbour.
        assert {(await end.seen_by(world.endpoints[2]))[1] for end in ends} == ports
        assert (await Inside(hosts[1], "udp").seen_by(world.endpoints[1]))[1] not in ports
        assert [await drain(sock) for sock in late] == [[]] * 4
        # TCP has ports of its own.
        ends = [Inside(hosts[0], "tcp") for _ in range(16)]
        assert len({await end.seen_by(world.endpoints[0]) for end in ends}) == 16
        assert await knock(hosts[0], world.endpoints[0]) == "silence"


async def test_the_ports_of_closed_connections_come_back() -> None:
    config = NatConfig(EI, EI, "block:4", tcp_established_timeout=1)
    async with net() as world:
        (host,) = await world.add_nat(config, hosts=1)

        async def another_is_open() -> bool:
            return await knock(host, world.endpoints[0]) == "open"

        for _ in range(3 * 4):
            await await_until(another_is_open)


# In a pcap file: a header each, Ethernet, IPv4, UDP, and "flood".
PACKET = 16 + 14 + 20 + 8 + 5
MODES = ("home", "corporate", "address-restricted", "symmetric-predictable")

FLOOD = """
import itertools, socket, sys
address, ports = sys.argv[1], range(int(sys.argv[2]), int(sys.argv[3]))
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(16)]
print("begun", flush=True)
for number, port in enumerate(itertools.cycle(ports)):
    sockets[number % 16].sendto(b"flood", (address, port))
"""


async def test_no_packet_passes_untranslated_or_unfiltered_while_the_mode_changes(tmp_path: Path) -> None:
    async with net() as world:
        (host,) = await world.add_nat("home", hosts=1, firewall="block-inbound")
        router, ix, stranger = world.routers[0], world.lab.ix, world.stranger
        outside = str(router.uplink_ip)
        # A stranger who knows the way to the inside addresses.
        inside = str(router.downstream_cidr)
        await ix.run(["ip", "route", "add", inside, "via", outside])
        wan, eth0, changes = tmp_path / "wan.pcap", tmp_path / "eth0.pcap", 0
        # Where the lab's root is an ordinary user, the file is his.
        async with (
            ix.open_process(
                [
                    "tcpdump",
                    "-Zroot",
                    "-ni",
                    "lan",
                    "-B",
                    "65536",
                    "-w",
                    str(wan),
                    f"not src host {stranger.ip} and ip and not dst net {inside}",
                ],
                stderr=-1,
            ) as one,
            host.open_process(
                ["tcpdump", "-Zroot", "-ni", "eth0", "-w", str(eth0), f"src host {stranger.ip}"], stderr=-1
            ) as two,
        ):
            for capture in (one, two):
                await until(capture.stderr, b"listening on")
            async with (
                host.open_process(
                    [sys.executable, "-c", FLOOD, str(world.s1.node.ip), "7000", "7100"], stdout=-1
                ) as out,
                stranger.open_process(
                    [sys.executable, "-c", FLOOD, outside, "1024", "65535"], stdout=-1
                ) as guess,
                stranger.open_process(
                    [sys.executable, "-c", FLOOD, str(host.ip), "1024", "65535"], stdout=-1
                ) as knows,
            ):
                for flood in (out, guess, knows):
                    await until(flood.stdout, b"begun")
                for mode in itertools.cycle(MODES):
                    await router.set_nat_mode(mode)
                    changes += 1
                    if changes >= 100 and wan.stat().st_size > 10_000 * PACKET:
                        break
            for capture in (one, two):
                capture.terminate()
                await capture.wait()
        assert await count(ix, wan, f"src host {outside} and udp") > 5000
        assert await count(ix, wan, f"not src host {outside} and udp and dst host {world.s1.node.ip}") == 0
        assert await count(ix, eth0, "udp") == 0


async def until(stream: trio.abc.ReceiveStream | None, words: bytes) -> None:
    assert stream
    said = b""
    with trio.fail_after(DEADLINE):
        async for data in stream:
            said += data
            if words in said:
                return
    raise AssertionError(f"it ended after {said!r}")


async def count(node: Node, capture: Path, which: str) -> int:
    done = await node.run(
        ["tcpdump", "-Zroot", "-nr", str(capture), which], capture_stdout=True, capture_stderr=True
    )
    return len(done.stdout.splitlines())
