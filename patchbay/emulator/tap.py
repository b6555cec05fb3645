"""One end of a link: packet sockets that see what arrives there, and send.

Frames arrive in a ring of slots that the kernel fills and this process reads (packet_mmap,
TPACKET_V2): the time of arrival comes with each, none costs a system call, and the socket's receive
buffer, which a user namespace may not enlarge, does not bound them. Slots are as small as the MTU, so
that 1300 packets wait in 2 MiB. Larger frames (GSO) get a second ring once the first of them comes.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import struct
import time
from operator import itemgetter

from patchbay.emulator.frames import VNET, with_tag
from patchbay.emulator.system import attach_filter

__all__ = ["Frame", "Tap"]

# include/uapi/linux/if_packet.h
SOL_PACKET = 263
PACKET_RX_RING = 5
PACKET_STATISTICS = 6
PACKET_COPY_THRESH = 7
PACKET_VERSION = 10
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
TPACKET_V2 = 1
TP_STATUS_USER = 1
TP_STATUS_COPY = 1 << 1
TP_STATUS_VLAN_VALID = 1 << 4
# include/uapi/linux/if_ether.h and sockios.h
ETH_P_ALL = 3
SIOCGIFMTU = 0x8921

# struct tpacket2_hdr: status, len, snaplen, mac, net, sec, nsec, vlan_tci, vlan_tpid
_SLOT = struct.Struct("=IIIHHIIHH")
# What stands before the frame in a slot (tpacket_rcv: both headers, aligned, and the virtio one), the
# frame's own header, and a second tag; the first is kept beside the frame.
_BEFORE, _ETHERNET, _TAG = 76, 14, 4
_LARGEST_MTU = 65535
_RING = 2 << 20
_LARGE_RING = 4 << 20
_RECEIVE_BUFFER = 8 << 20
_AT_ONCE = 64
# Nothing is stamped so much later than now; if it seems so, somebody has set the clock.
_CLOCK_WAS_SET = 10_000_000

# The time of arrival by the wall clock in ns; the frame, valid until `release()`.
Frame = tuple[int, memoryview | bytes]


class Ring:
    """A packet socket, unbound and without slots until `start`."""

    def __init__(self) -> None:
        # Protocol 0 hears nothing until bind() names one: no frame of another interface gets in.
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.setblocking(False)
        self.ready = False
        self.missed = 0
        self._next = 0
        self._taken: list[int] = []

    def start(self, ifname: str, size: int, mtu: int) -> None:
        """Hear `ifname`, in a ring of slots for frames of that MTU."""
        option = self.sock.setsockopt
        option(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        option(SOL_PACKET, PACKET_VNET_HDR, 1)
        option(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        # What does not fit a slot is queued at the socket too, which holds as much as it is let hold.
        option(SOL_PACKET, PACKET_COPY_THRESH, 1)
        option(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._slot = -(-(_BEFORE + _ETHERNET + _TAG + mtu) // 16) * 16
        self._slots = size // self._slot
        self.holds = self._slot - _BEFORE
        self.read_until = self.skip_large_from = float("inf")
        self.met_large = False
        option(SOL_PACKET, PACKET_RX_RING, struct.pack("=IIII", size, 1, self._slot, self._slots))
        self._ring = memoryview(mmap.mmap(self.sock.fileno(), size))
        self._status = self._ring.cast("I")
        self.sock.bind((ifname, ETH_P_ALL))
        self.ready = True

    def read(self, until: float) -> list[Frame]:
        """Some of the frames that arrived until then."""
        found: list[Frame] = []
        ring, unpack, slot, slots = self._ring, _SLOT.unpack_from, self._slot, self._slots
        for number in range(self._next, self._next + min(_AT_ONCE, slots)):
            start = number % slots * slot
            status, length, kept, mac, _, sec, nsec, tci, tpid = unpack(ring, start)
            stamp = sec * 1_000_000_000 + nsec
            if not status & TP_STATUS_USER or 0 < stamp - until < _CLOCK_WAS_SET:
                break
            self._taken.append(start // 4)
            first = start + mac - VNET
            frame: memoryview | bytes | None = ring[first : first + VNET + kept]
            if kept < length:
                frame = self._read_large(length, stamp, status)
            if frame is None:
                continue
            if status & TP_STATUS_VLAN_VALID:
                frame = with_tag(frame, tci, tpid)
            found.append((stamp, frame))
        else:
            until = stamp  # there may be more
        self.read_until = until
        return found

    def _read_large(self, length: int, stamp: int, status: int) -> bytes | None:
        self.met_large = True
        frame = self._receive(VNET + length) if status & TP_STATUS_COPY else None
        if stamp > self.skip_large_from:
            return None
        self.missed += frame is None
        return frame

    def _receive(self, size: int) -> bytes | None:
        for _ in range(2):
            # The first may tell of an interface that went down, once.
            with contextlib.suppress(OSError):
                return self.sock.recv(size)
        return None

    def release(self) -> int:
        """Give the slots of what was read back to the kernel; how many."""
        status = self._status
        number = len(self._taken)
        for word in self._taken:
            status[word] = 0
        self._next = (self._next + number) % self._slots
        self._taken.clear()
        return number

    def discard(self) -> None:
        """Lose what has arrived and was not read."""
        for _ in range(self._slots // _AT_ONCE + 2):  # a flood would feed it for ever
            self.read(float("inf"))
            self.release()

    def count_missed(self) -> int:
        """Frames for which there was no room, ever."""
        statistics = self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)  # counts from 0 again
        self.missed += int(struct.unpack("=II", statistics)[1])
        return self.missed


class Tap:
    """Bound to an interface, which must be there, for as long as the process lives."""

    def __init__(self, ifname: str) -> None:
        self._ifname = ifname
        self._small, self._large = Ring(), Ring()
        self._may_separate = True
        self._fd = self._small.sock.fileno()
        mtu = _mtu(self._small.sock, ifname)
        self.index = socket.if_nametoindex(ifname)
        self._small.start(ifname, _RING, mtu)

    @property
    def fds(self) -> tuple[int, int]:
        return self._fd, self._large.sock.fileno()

    def read(self, wall_now: float) -> list[Frame]:
        """Some frames, in the order in which they arrived.

        A frame is in its ring before a later one of the same sender is stamped. So whatever is stamped
        before now, by the clock as it was before looking at either ring, can be put in order.
        """
        if not self._large.ready:
            return self._small.read(float("inf"))
        frames = self._small.read(wall_now)
        if large := self._large.read(self._small.read_until):
            frames = sorted(frames + large, key=itemgetter(0))
        return frames

    def release(self) -> bool:
        """What was read is done with; whether there was anything."""
        number = self._small.release()
        if self._large.ready:
            number += self._large.release()
        elif self._small.met_large and self._may_separate:
            self._separate_large()
        return number > 0

    def _separate_large(self) -> None:
        """From now on large frames go to their own ring, which must hear them before the other does not.

        Without the memory for it the small one goes on, and has few of them queued at its socket.
        """
        self._may_separate = False
        with contextlib.suppress(OSError):
            self._start_large()

    def _start_large(self) -> None:
        attach_filter(self._large.sock, _longer_than(self._small.holds, accept=True))
        self._large.start(self._ifname, _LARGE_RING, _LARGEST_MTU)
        self._small.skip_large_from = time.time_ns()
        attach_filter(self._small.sock, _longer_than(self._small.holds, accept=False))

    def send(self, frame: memoryview | bytes) -> bool:
        try:
            os.write(self._fd, frame)
        except OSError:
            return False
        return True

    def discard(self) -> None:
        """Lose what has arrived and was not read."""
        for ring in (self._small, self._large):
            if ring.ready:
                ring.discard()

    def clear_error(self) -> None:
        """ENETDOWN, which is told once whenever the interface goes down."""
        for ring in (self._small, self._large):
            ring.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def count_missed(self) -> int:
        """Frames for which there was no room, ever."""
        return self._small.count_missed() + self._large.count_missed()


def _mtu(sock: socket.socket, ifname: str) -> int:
    request = struct.pack("16si", ifname.encode(), 0)
    try:
        answer = fcntl.ioctl(sock, SIOCGIFMTU, request.ljust(40, b"\0"))
    except OSError as error:
        error.filename = ifname
        raise
    return int(struct.unpack_from("16si", answer)[1])


def _longer_than(length: int, accept: bool) -> list[tuple[int, int, int, int]]:
    load_length, greater, give = 0x80, 0x25, 0x06
    kept = [(give, 0, 0, 0), (give, 0, 0, 0xFFFFFFFF)]
    return [(load_length, 0, 0, 0), (greater, int(accept), int(not accept), length), *kept]
