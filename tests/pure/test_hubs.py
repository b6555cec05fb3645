"""The processes in which services share, with processes that are none."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Collection, Iterator
from typing import Any, cast

from patchbay.sandbox.inside import wire
from patchbay.sandbox.inside.hubs import Hubs
from patchbay.sandbox.inside.server import Conversation, Server

RELAY = "patchbay.emulator.relay"


class Processes:
    """A server whose forks do nothing but hold their end of the channel; the numbers in `dead` do not."""

    def __init__(self, dead: Collection[int] = ()) -> None:
        self.channels: list[socket.socket | None] = []
        self._dead = dead
        self._ready: dict[int, Callable[[], None]] = {}

    def fork(self, _run: Callable[[], None], keep: Collection[int]) -> int:
        (fd,) = keep
        alive = len(self.channels) not in self._dead
        self.channels.append(socket.socket(fileno=os.dup(fd)) if alive else None)
        return len(self.channels)

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        self._ready[fd] = ready

    def forget(self, fd: int) -> None:
        self._ready.pop(fd, None)

    def one_has_ended(self, number: int) -> None:
        channel = self.channels[number]
        assert channel
        wire.send(channel, {"ended": True})
        for ready in list(self._ready.values()):
            ready()
            return


def start(processes: Processes, hubs: Hubs) -> None:
    ours, theirs = wire.pair()
    conversation = Conversation(cast("Server", processes), theirs)
    hubs.put(conversation, {"module": RELAY, "ns": "r", "args": []})
    ours.close()


def heard(processes: Processes, number: int) -> list[dict[str, Any]]:
    """What a process was asked for."""
    channel = processes.channels[number]
    found: list[dict[str, Any]] = []
    assert channel
    channel.setblocking(False)
    while True:
        try:
            message, fds = wire.receive(channel)
        except BlockingIOError:
            return found
        assert message
        found.append(message)
        for fd in fds:
            os.close(fd)


@contextlib.contextmanager
def hubs_of(processes: Processes) -> Iterator[Hubs]:
    hubs = Hubs(cast("Server", processes))
    yield hubs
    for channel in filter(None, processes.channels):
        channel.close()
    for hub in (hub for of_module in hubs._hubs.values() for hub in of_module):
        hub.sock.close()


def test_a_few_services_are_alone_and_many_share_up_to_eight_a_process() -> None:
    processes = Processes()
    with hubs_of(processes) as hubs:
        for _ in range(32):
            start(processes, hubs)
        assert [[m["alone"] for m in heard(processes, n)] for n in range(32)] == [[True]] * 32
        for _ in range(32 * 7):
            start(processes, hubs)
        assert [[m["alone"] for m in heard(processes, n)] for n in range(32)] == [[False] * 7] * 32
        start(processes, hubs)
        assert [m["alone"] for m in heard(processes, 32)] == [False]


def test_a_service_is_not_lost_with_a_process_that_has_just_died() -> None:
    processes = Processes(dead={0})
    with hubs_of(processes) as hubs:
        start(processes, hubs)
        assert len(processes.channels) == 2
        assert len(heard(processes, 1)) == 1


def test_a_process_whose_last_service_has_ended_is_let_go() -> None:
    processes = Processes()
    with hubs_of(processes) as hubs:
        start(processes, hubs)
        assert len(heard(processes, 0)) == 1
        processes.one_has_ended(0)
        (channel,) = processes.channels
        assert channel
        assert wire.receive(channel)[0] is None
        start(processes, hubs)
        assert len(processes.channels) == 2
