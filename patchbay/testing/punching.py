"""Hole punching for real: two devices that a rendezvous server tells of each other, through their NATs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations_with_replacement

import trio

import patchbay.lab.open as opening
from patchbay.lab.lab import Lab
from patchbay.lab.nodes import Device
from patchbay.model.nat import Nat, NatConfig
from patchbay.services import stun_messages as stun
from patchbay.testing.place import Endpoint, Place
from patchbay.testing.probe import Answer
from patchbay.testing.server import serve_stun
from patchbay.testing.tcp import TcpInside, open_tcp
from patchbay.testing.udp import UdpInside, open_udp

__all__ = ["measure_matrix", "punches"]

AnyNat = Nat | NatConfig

_TRANSACTION = b"hole-punch12"
_UDP_TRIES, _UDP_PACE = 4, 0.1
# The kernel repeats a SYN after 1 s: two of each side.
_TCP_WITHIN = 1.5
# Each takes a moment when it fails, and little of the machine.
_AT_ONCE = 12


async def punches(a: Device, b: Device, server: Endpoint, protocol: str = "udp") -> bool:
    """Return whether two devices connect by simultaneous open, introduced by a STUN server that both reach.

    By UDP each sends to the other's mapped endpoint four times, 0.1 s apart; by TCP each connects to it, for
    1.5 s, and listens. For paths of a lab without delay. Raises `trio.TooSlowError` if the server
    does not answer.
    """
    return await (_punch_udp if protocol == "udp" else _punch_tcp)(a, b, server)


def _seen(answer: Answer | None) -> Endpoint:
    if answer is None or answer.mapped is None:
        raise trio.TooSlowError("the rendezvous server does not answer")
    return answer.mapped


async def _punch_udp(a: Device, b: Device, server: Endpoint) -> bool:
    async with open_udp(Place(a), str(a.ip)) as one, open_udp(Place(b), str(b.ip)) as two:
        ends = await one.inside(), await two.inside()
        first, second = [_seen(await end.ask(server)) for end in ends]
        heard = []

        async def send(end: UdpInside, to: Endpoint) -> None:
            with end.awaiting(_TRANSACTION) as awaited:
                for _ in range(_UDP_TRIES):
                    await end.send(stun.Indication(_TRANSACTION), to)
                    if await awaited.within(_UDP_PACE):
                        heard.append(awaited.source)
                        # The other hears of it by the way by which it came.
                        await end.send(stun.Indication(_TRANSACTION), awaited.source or to)
                        return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, ends[0], second)
            nursery.start_soon(send, ends[1], first)
        return len(heard) == 2


async def _punch_tcp(a: Device, b: Device, server: Endpoint) -> bool:
    async with open_tcp(Place(a), str(a.ip)) as one, open_tcp(Place(b), str(b.ip)) as two:
        ends = await one.inside(), await two.inside()
        for end in ends:
            await end.listen()
        first, second = [_seen(await end.ask(server)) for end in ends]
        opened = []

        async def connect(end: TcpInside, to: Endpoint, nursery: trio.Nursery) -> None:
            with contextlib.suppress(OSError):
                await end.connect(to)
                opened.append(to)
                nursery.cancel_scope.cancel()

        with trio.move_on_after(_TCP_WITHIN):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect, ends[0], second, nursery)
                nursery.start_soon(connect, ends[1], first, nursery)
        return bool(opened)


async def measure_matrix(
    nats: Mapping[str, AnyNat],
    protocols: Sequence[str] = ("udp", "tcp"),
    done: Callable[[], None] = lambda: None,
) -> dict[tuple[str, str, str], bool]:
    """Return, by (protocol, name, name), whether devices behind the two NATs connect.

    Opens a lab of its own, with two routers of each kind. Each pair is measured once, in the order of `nats`;
    `done` is called after each.
    """
    found: dict[tuple[str, str, str], bool] = {}
    limit = trio.CapacityLimiter(_AT_ONCE)
    async with opening.open_lab(label="nat-matrix") as lab:
        server, devices = await _build(lab, nats)

        async def measure(protocol: str, a: str, b: str, at: Endpoint) -> None:
            async with limit:
                found[protocol, a, b] = await punches(devices[a][0], devices[b][1], at, protocol)
                done()

        async with serve_stun(server) as servers, trio.open_nursery() as nursery:
            for protocol in protocols:
                for a, b in combinations_with_replacement(nats, 2):
                    nursery.start_soon(measure, protocol, a, b, servers.first)
    return found


async def _build(lab: Lab, nats: Mapping[str, AnyNat]) -> tuple[Device, dict[str, list[Device]]]:
    async with lab.batch():
        dc = await lab.add_router("dc", preset="datacenter")
        server = await lab.add_device("server", uplink=dc)
        devices: dict[str, list[Device]] = {}
        for number, (name, nat) in enumerate(nats.items()):
            for side in ("a", "b"):
                router = await lab.add_router(f"nat-{number}-{side}", nat=nat)
                device = await lab.add_device(f"host-{number}-{side}", uplink=router)
                devices.setdefault(name, []).append(device)
    return server, devices
