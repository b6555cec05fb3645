"""A link through a relay, made by hand: dev:eth0 = far, relay, near = p1 of the bridge `lan` of router."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import patchbay
from patchbay.lab.node import Node
from patchbay.sandbox.process import NodeProcess
from tests.judging import Best, satisfy
from tests.patience import DEADLINE, await_until

ROOT = Path(patchbay.__path__[0]).parent
DEV, ROUTER = "10.0.0.2", "10.0.0.1"
RINGS = ("at once", "later", "none")
ENDS = ["--far", "far", "--near", "near", "--seed", "1"]

_TOPOLOGY = """
set -e
for ns in dev mid router; do
    ip netns add $ns
    ip -n $ns link set lo up
    ip netns exec $ns sh -c 'for f in /proc/sys/net/bridge/bridge-nf-call-*; do
        [ ! -e $f ] || echo 0 > $f; done; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6'
done
one_queue="mtu $MTU numtxqueues 1 numrxqueues 1"
ip -n mid link add name dead type bridge
ip -n mid link add name far $one_queue type veth peer name eth0 netns dev $one_queue
ip -n mid link add name near $one_queue type veth peer name p1 netns router $one_queue
ip -n mid link set far master dead up
ip -n mid link set near master dead up
ip -n router link add name lan mtu $MTU type bridge
ip -n router link set lan up $CAP
ip -n router link set p1 master lan up $CAP
ip -n dev link set eth0 up $CAP
ip -n dev addr add 10.0.0.2/24 dev eth0
ip -n router addr add 10.0.0.1/24 dev lan
ip -n router neigh add 10.0.0.2 dev lan lladdr $(ip netns exec dev cat /sys/class/net/eth0/address)
ip -n dev neigh add 10.0.0.1 dev eth0 lladdr $(ip netns exec router cat /sys/class/net/lan/address)
"""

SEND_UDP = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    for _ in range(int(sys.argv[2])):
        sock.sendto(bytes(int(sys.argv[3])), (sys.argv[1], 5000))
"""


class Told:
    """The lines of JSON that a process writes."""

    def __init__(self, process: NodeProcess) -> None:
        self._process = process
        self._lines = b""

    async def next(self) -> Any:
        while b"\n" not in self._lines:
            assert self._process.stdout
            chunk = await self._process.stdout.receive_some()
            assert chunk, "the process has ended"
            self._lines += chunk
        line, _, self._lines = self._lines.partition(b"\n")
        return json.loads(line)


class Control(Told):
    """The conversation with a relay, through its driver."""

    pid = 0

    async def ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin
        await self._process.stdin.send_all(json.dumps(request).encode() + b"\n")
        return await self.next()

    async def stats(self, way: str) -> dict[str, int]:
        answer = await self.ask({"stats": True})
        found: dict[str, int] = answer["stats"][way]
        return found

    async def end(self) -> int:
        """End the conversation; the wait status of the relay."""
        assert self._process.stdin
        await self._process.stdin.aclose()
        status = await self.next()
        assert isinstance(status, int)
        return status


class Link:
    def __init__(self, node: Node) -> None:
        self._node = node

    async def run(self, ns: str, *argv: str, check: bool = True, **options: Any) -> str:
        command = ["ip", "netns", "exec", ns, *argv]
        done = await self._node.run(command, check=check, capture_stdout=True, **options)
        return done.stdout.decode()

    async def python(self, ns: str, code: str, *args: str, **options: Any) -> str:
        return await self.run(ns, sys.executable, "-c", code, *args, **options)

    @contextlib.asynccontextmanager
    async def background(self, ns: str, *argv: str) -> AsyncIterator[NodeProcess]:
        pipe = subprocess.PIPE
        command = ["ip", "netns", "exec", ns, *argv]
        env = {"PYTHONPATH": str(ROOT)}
        async with self._node.open_process(command, stdin=pipe, stdout=pipe, env=env) as process:
            yield process

    async def by_hand(self, *conditions: str) -> None:
        """Start a relay in the background; it ends with the lab."""
        argv = [sys.executable, "-m", "patchbay.emulator.relay", *ENDS, *conditions]
        await self.run("mid", *argv, env={"PYTHONPATH": str(ROOT)})

    @contextlib.asynccontextmanager
    async def relay(self, *conditions: str, rings: str = "at once") -> AsyncIterator[Control]:
        """A relay whose ends have rings at once, as where there are few links, `later`, or none at first."""
        how = "alone" if rings == "at once" else "shared"
        driver = str(Path(__file__).parent / "driver.py")
        async with self.background("mid", sys.executable, driver, how, *ENDS, *conditions) as process:
            control = Control(process)
            control.pid = await control.next()
            assert await control.next() == {"up": True}
            if rings == "later":
                await crowd(self, control)
            yield control

    async def ping(self, count: int = 1, *options: str, check: bool = True) -> list[float]:
        """The round-trip times in ms of the answers, from dev to router; with `check` there must be some."""
        wait = DEADLINE if check else 0.2
        argv = ["ping", "-n", "-c", str(count), "-i", "0.01", "-W", str(wait), *options, ROUTER]
        words = (await self.run("dev", *argv, check=check)).split()
        return [float(word.removeprefix("time=")) for word in words if word.startswith("time=")]


@contextlib.asynccontextmanager
async def open_link(*, capped: bool = False, mtu: int = 1500) -> AsyncIterator[Link]:
    """The link without its relay. `capped`: no frame stands for several, as where conditions apply."""
    env = {"MTU": str(mtu), "CAP": "gso_max_segs 1" if capped else ""}
    async with patchbay.open_lab() as lab:
        await lab.ix.run(["sh", "-c", _TOPOLOGY], env=env)
        yield Link(lab.ix)


async def expect_ping(link: Link, floor: float, ceiling: float) -> int:
    """A ping takes `floor` ms or more, and at the best no more than `ceiling`. Return how many were sent."""
    judge = Best(floor, ceiling, "ms")

    async def sample() -> None:
        judge.values += await link.ping(5)

    await satisfy(judge, sample)
    return len(judge.values)


def python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-c", code, *args]


async def packet_sockets(link: Link) -> int:
    """How many packet sockets hear something where the relay is (net/packet/af_packet.c, packet_seq_show)."""
    return len((await link.run("mid", "cat", "/proc/net/packet")).splitlines()) - 1


async def crowd(link: Link, control: Control) -> None:
    """Have more frames wait at `far` than a plain socket is for, so that it gets a ring."""
    before = (await control.stats("up"))["received"]
    await link.run("mid", "kill", "-STOP", str(control.pid))
    await link.python("dev", SEND_UDP, ROUTER, "100", "1000")
    await link.run("mid", "kill", "-CONT", str(control.pid))

    async def has_a_ring() -> bool:
        # Asking makes it look again, as packets would.
        return (await control.stats("up"))["received"] == before + 100 and await packet_sockets(link) == 3

    await await_until(has_a_ring)
