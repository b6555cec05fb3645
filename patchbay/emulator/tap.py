"""One end of a link: sees what arrives at an interface, and sends.

A plain socket hears all that arrives, small frames and large ones (GSO, more than the MTU). Once many of one
kind wait there at once, a thread makes a ring for that kind, which takes over from the socket: it holds 1300
small frames in 2 MiB, or 63 large ones in 4 MiB. Where there are few links, the ring for small frames is
there from the beginning (`make_room`), so that no burst is the first that needs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter

from patchbay.emulator.packets import Frame, PacketQueue, PacketRing, Source, mtu_of
from patchbay.emulator.system import Step
from patchbay.sandbox.inside import kernel

__all__ = ["Tap", "Watch", "make_room"]

# include/uapi/linux/sockios.h: a descriptor of the network namespace of a socket
SIOCGSKNS = 0x894C

_SMALL_RING = 2 << 20
_LARGE_RING = 4 << 20
_LARGEST_MTU = 65535


Watch = Callable[["Tap", int], None]


class Tap:
    """Bound to an interface, which must be there. `watch` is called with each further socket to wait for."""

    def __init__(self, ifname: str, watch: Watch) -> None:
        self._ifname = ifname
        self._watch = watch
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            self._mtu = mtu_of(any_socket, ifname)
        self.index = socket.if_nametoindex(ifname)
        self._holds = PacketRing.holds(self._mtu)
        self._queue = PacketQueue(ifname, self._holds)
        self._fd = self._queue.sock.fileno()
        self._rings: dict[bool, PacketRing] = {}
        self._begun: set[bool] = set()
        self._made: dict[bool, PacketRing] = {}
        self._awake = True
        self._choose_sources()

    def wake(self) -> None:
        """Look at the plain socket next time: to ask it in vain costs more than most packets do."""
        self._awake = True

    @property
    def fd(self) -> int:
        """Return the first socket to wait for."""
        return self._fd

    def _choose_sources(self) -> None:
        small, large = (self._rings.get(large, self._queue) for large in (False, True))
        self._small: Source = small
        # None while one hears both.
        self._large: Source | None = None if small is large else large

    def read(self, wall_now: float) -> list[Frame]:
        """Return some frames, in the order in which they arrived.

        A frame is in its socket before a later one of the same sender is stamped. So whatever is stamped
        before now, by the clock as it was before looking at either, can be put in order.
        """
        if self._large is None:
            awake, self._awake = self._awake, False
            return self._small.read(float("inf")) if awake else []
        frames = self._small.read(wall_now)
        if large := self._large.read(self._small.read_until):
            frames = sorted(frames + large, key=itemgetter(0))
        return frames

    def release(self) -> bool:
        """Give back what was read. Return whether there was anything."""
        number = self._small.release()
        if self._large is not None:
            number += self._large.release()
        if len(self._rings) < 2:
            self._grow()
        return number > 0

    def send(self, frame: memoryview | bytes) -> bool:
        try:
            os.write(self._fd, frame)
        except OSError:
            return False
        return True

    def discard(self) -> None:
        """Lose what has arrived and was not read."""
        for each in self._sockets:
            each.discard()

    def clear_error(self) -> None:
        """Read ENETDOWN, which the kernel reports once whenever the interface goes down."""
        for each in self._sockets:
            each.clear_error()

    def count_missed(self) -> int:
        """Frames for which there was no room, ever."""
        return sum(each.count_missed() for each in self._sockets)

    def close(self) -> None:
        """Close its sockets, each of which waits for RCU."""
        for each in self._sockets:
            each.sock.close()

    @property
    def _sockets(self) -> list[PacketQueue | PacketRing]:
        return [self._queue, *self._rings.values()]

    # -- rings

    def _grow(self) -> None:
        """Begin to make a ring for each kind of which there is much; use those that are made."""
        for large in self._queue.many - self._begun:
            _beside(self.begin_ring(large))
        self.use_rings()

    def begin_ring(self, large: bool) -> Callable[[], None]:
        """Return what makes a ring, in any thread."""
        self._begun.add(large)
        return partial(self._make_ring, large, fcntl.ioctl(self._fd, SIOCGSKNS))

    def use_rings(self) -> None:
        """Let the rings that were made take over."""
        while self._made:
            self._take_over(*self._made.popitem())

    def _make_ring(self, large: bool, network: int) -> None:
        """Make a ring in the network of the interface. Without memory for it the queue goes on alone."""
        with contextlib.suppress(OSError):
            kernel.setns(network, kernel.CLONE_NEWNET)
            ring = PacketRing(_LARGE_RING, _LARGEST_MTU) if large else PacketRing(_SMALL_RING, self._mtu)
            ring.let_in(_of_kinds({large}, self._holds))
            self._made[large] = ring
        os.close(network)

    def _take_over(self, large: bool, ring: PacketRing) -> None:
        """Let the ring hear its kind of frames, and the queue no more of it; what both heard is in the ring.

        The kernel stamps a frame once, whatever hears it.
        """
        ring.hear(self._ifname)
        kinds = self._queue.kinds - {large}
        self._queue.let_in(_of_kinds(kinds, self._holds))
        waiting = self._queue.read(float("inf"))
        in_ring = ring.stamps()
        self._queue.put_back([frame for frame in waiting if frame[0] not in in_ring])
        # A frame may have passed the old filter a moment ago.
        self._queue.kinds = kinds
        self._rings[large] = ring
        self._watch(self, ring.sock.fileno())
        self._choose_sources()


def make_room(taps: Sequence[Tap]) -> None:
    """Make the rings for small frames, side by side, because each waits for a grace period of RCU."""
    threads = [threading.Thread(target=tap.begin_ring(False)) for tap in taps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for tap in taps:
        tap.use_rings()


_jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
_worker: threading.Thread | None = None


def _beside(job: Callable[[], None]) -> None:
    """Run a job in a thread, after those before it: many rings made at once would hold up the relaying."""
    global _worker  # noqa: PLW0603  a process has one
    _jobs.put(job)
    if _worker is None:
        _worker = threading.Thread(target=_work, daemon=True)
        _worker.start()


def _work() -> None:
    while True:
        _jobs.get()()


def _of_kinds(kinds: set[bool], holds: int) -> list[Step]:
    """Return a filter for small frames (False), large ones (True), or both."""
    load_length, greater, give = 0x80, 0x25, 0x06
    small, large = (0xFFFFFFFF * (kind in kinds) for kind in (False, True))
    return [(load_length, 0, 0, 0), (greater, 1, 0, holds), (give, 0, 0, small), (give, 0, 0, large)]
