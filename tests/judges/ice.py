"""ICE sessions between devices of a lab, and what became of them."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import trio
from attrs import frozen

from patchbay.lab.nodes import Device
from patchbay.sandbox.process import NodeProcess
from tests.judges.coturn import HTTPS_PORT, PASSWORD, PORT, USER, Coturn
from tests.patience import DEADLINE

K = TypeVar("K")

AGENT = Path(__file__).with_name("ice_agent.py")


@frozen
class Outcome:
    """Of a session: what each end has to say."""

    ends: tuple[dict[str, Any], dict[str, Any]]

    @property
    def connected(self) -> bool:
        """Whether both ends found a way, and heard each other on it."""
        first, second = (end["connected"] for end in self.ends)
        assert first == second, self
        assert not first or all(end["heard"] for end in self.ends), self
        return bool(first)

    @property
    def relayed(self) -> bool:
        return any(candidate.startswith("relay") for end in self.ends for candidate in end["pair"])

    @property
    def remote_types(self) -> tuple[str, str]:
        """Of the other end's candidate, as each end knows it: host, srflx, prflx, relay."""
        first, second = (end["pair"][1].partition(" ")[0] for end in self.ends)
        return first, second


# Which servers an end asks: arguments of `aioice.Connection`.
Servers = dict[str, Any]


def stun_alone(coturn: Coturn) -> Servers:
    return {"stun_server": (coturn.address, PORT)}


def turn_by_udp(coturn: Coturn) -> Servers:
    return stun_alone(coturn) | _turn(coturn, PORT, "udp")


def turn_by_https_port(coturn: Coturn) -> Servers:
    """For where nothing else gets out; without STUN, whose answer would only be waited for, 5 s."""
    return _turn(coturn, HTTPS_PORT, "tcp")


def _turn(coturn: Coturn, port: int, transport: str) -> Servers:
    return {
        "turn_server": (coturn.address, port),
        "turn_username": USER,
        "turn_password": PASSWORD,
        "turn_transport": transport,
    }


class Agent:
    """`ice_agent.py` in a device. One does for any number of sessions at once."""

    def __init__(self, process: NodeProcess) -> None:
        self._process = process
        self._numbers = itertools.count()
        self._waiting: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}
        self._lock = trio.Lock()

    async def ask(self, **request: Any) -> dict[str, Any]:
        number = next(self._numbers)
        send, receive = trio.open_memory_channel[dict[str, Any]](1)
        self._waiting[number] = send
        async with self._lock:
            assert self._process.stdin
            await self._process.stdin.send_all(json.dumps({"number": number, **request}).encode() + b"\n")
        return await receive.receive()

    async def listen(self) -> None:
        """Hand the answers out. Fails if the process ends, by whatever it has printed."""
        rest = b""
        assert self._process.stdout
        async for data in self._process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                self._waiting.pop(answer.pop("number")).send_nowait(answer)
        raise AssertionError("an ICE agent has ended")


@contextlib.asynccontextmanager
async def open_agents(devices: Mapping[K, Device]) -> AsyncIterator[dict[K, Agent]]:
    """An agent in each device."""
    async with contextlib.AsyncExitStack() as stack, trio.open_nursery() as nursery:
        agents = {}
        for name, device in devices.items():
            process = await stack.enter_async_context(
                device.open_process(
                    [sys.executable, AGENT, str(DEADLINE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            agents[name] = Agent(process)
            nursery.start_soon(agents[name].listen)
        yield agents
        nursery.cancel_scope.cancel()


async def run_session(name: str, *ends: tuple[Agent, Servers]) -> Outcome:
    """One ICE session: both gather, get each other's description, and try to connect; the first controls."""
    found: dict[int, dict[str, Any]] = {}

    async def gather(end: int) -> None:
        agent, servers = ends[end]
        found[end] = await agent.ask(session=name, do="gather", controlling=end == 0, servers=servers)

    async def connect(end: int, remote: dict[str, Any]) -> None:
        found[end] = await ends[end][0].ask(session=name, do="connect", remote=remote)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(gather, 0)
        nursery.start_soon(gather, 1)
    descriptions = dict(found)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect, 0, descriptions[1])
        nursery.start_soon(connect, 1, descriptions[0])
    return Outcome((found[0], found[1]))
