"""Packet sockets of an interface (packet(7)): a plain one, and one with a ring of slots.

A plain socket is made at once, needs no memory while nothing arrives, and sends as well. Each frame costs a
system call, and few can wait: as much as net.core.rmem_max lets them, which a user namespace may not raise.

A ring (packet_mmap, TPACKET_V2) is filled by the kernel and read without system calls; its memory is taken
when it is made, and that waits for a grace period of RCU (12 ms here; af_packet.c, packet_set_ring).
"""

from __future__ import annotations

import fcntl
import mmap
import socket
import struct
from typing import Protocol

from patchbay.emulator.frames import VNET, with_tag
from patchbay.emulator.system import Step, attach_filter

__all__ = ["Frame", "PacketQueue", "PacketRing", "Source", "mtu_of"]

# include/uapi/linux/if_packet.h
SOL_PACKET = 263
PACKET_RX_RING = 5
PACKET_STATISTICS = 6
PACKET_AUXDATA = 8
PACKET_VERSION = 10
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
TPACKET_V2 = 1
TP_STATUS_USER = 1
TP_STATUS_VLAN_VALID = 1 << 4
# include/uapi/linux/if_ether.h, sockios.h, and asm-generic/socket.h
ETH_P_ALL = 3
SIOCGIFMTU = 0x8921
SO_TIMESTAMPNS = 35

# struct tpacket2_hdr: status, len, snaplen, mac, net, sec, nsec, vlan_tci, vlan_tpid
_SLOT = struct.Struct("=IIIHHIIHH")
# struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid; and struct timespec
_AUXDATA = struct.Struct("=IIIHHHH")
_TIME = struct.Struct("qq")
_MESSAGES = socket.CMSG_SPACE(_AUXDATA.size) + socket.CMSG_SPACE(_TIME.size)
# Bytes before the frame in a slot (tpacket_rcv: both headers, aligned, and the virtio header), the
# frame's own header, and a second tag; the first is kept beside the frame.
_BEFORE, _ETHERNET, _TAG = 76, 14, 4
_LARGEST = 1 << 16
_RECEIVE_BUFFER = 8 << 20
# For one frame of any size; a process has one thread that reads.
_BUFFER = memoryview(bytearray(VNET + _LARGEST + _ETHERNET + _TAG))
_RING_AT_ONCE = 64
# More than can wait there, so that a read takes all of it.
_QUEUE_AT_ONCE = 1000
# Of a queue that holds twice net.core.rmem_max, 416 KiB by default, this much at once is a crowd. A frame
# takes its own room and some more (SKB_TRUESIZE).
_CROWD = 32 << 10
_FOR_ONE = 768
# Nothing is stamped so much later than now; if it seems so, somebody has set the clock.
_CLOCK_WAS_SET = 10_000_000

# The time of arrival by the wall clock in ns; the frame, valid until `release()`.
Frame = tuple[int, memoryview | bytes]


class Source(Protocol):
    """Frames that arrive at an interface. The last `read` was complete up to `read_until`."""

    read_until: float

    def read(self, until: float) -> list[Frame]:
        """Return some of the frames that arrived until then, in their order."""
        ...

    def release(self) -> int:
        """Give back what was read. Return the number of frames, not 0 while more can be read at once."""
        ...


def mtu_of(sock: socket.socket, ifname: str) -> int:
    """Return the MTU of an interface. Raises `OSError`."""
    request = struct.pack("16si", ifname.encode(), 0)
    try:
        answer = fcntl.ioctl(sock, SIOCGIFMTU, request.ljust(40, b"\0"))
    except OSError as error:
        error.filename = ifname
        raise
    return int(struct.unpack_from("16si", answer)[1])


def _is_later(stamp: int, until: float) -> bool:
    return 0 < stamp - until < _CLOCK_WAS_SET


class _PacketSocket:
    """A socket that hears nothing until `hear`, and counts what it had no room for."""

    def __init__(self) -> None:
        # Protocol 0 hears nothing until bind() names one: no frame of another interface gets in.
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.setblocking(False)
        option = self.sock.setsockopt
        option(SOL_PACKET, PACKET_VNET_HDR, 1)
        option(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self.read_until = float("inf")
        self._missed = 0

    def hear(self, ifname: str) -> None:
        self.sock.bind((ifname, ETH_P_ALL))

    def let_in(self, program: list[Step]) -> None:
        attach_filter(self.sock, program)

    def clear_error(self) -> None:
        """Read ENETDOWN, which the kernel reports once whenever the interface goes down."""
        self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def count_missed(self) -> int:
        """Count the frames for which there was no room, ever."""
        statistics = self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)  # counts from 0 again
        self._missed += int(struct.unpack("=II", statistics)[1])
        return self._missed


class PacketQueue(_PacketSocket):
    """The plain socket. `many` has the kinds of frames of which many waited: True for large ones."""

    def __init__(self, ifname: str, holds: int) -> None:
        super().__init__()
        self.many: set[bool] = set()
        self.kinds = {False, True}
        self._holds = holds
        self._back: list[Frame] = []
        self._waited = {False: 0, True: 0}
        self._number = 0
        option = self.sock.setsockopt
        option(SOL_PACKET, PACKET_AUXDATA, 1)
        option(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        option(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self.hear(ifname)

    def read(self, until: float) -> list[Frame]:
        found: list[Frame] = []
        self._waited = {False: 0, True: 0}
        while len(found) < _QUEUE_AT_ONCE and (frame := self._next()):
            if _is_later(frame[0], until):
                self._back.append(frame)
                break
            found.append(frame)
        for large, size in self._waited.items():
            if size > _CROWD:
                self.many |= {False, large}  # beside a ring, to look at the queue as well would cost time
        self.read_until = until
        self._number += len(found)
        return found

    def _next(self) -> Frame | None:
        if self._back:
            return self._back.pop()
        try:
            return self._receive()
        except BlockingIOError:
            return None
        except OSError:  # an interface that went down, which is reported once
            return self._next()

    def _receive(self) -> Frame:
        while True:
            size, messages, _, _ = self.sock.recvmsg_into([_BUFFER], _MESSAGES)
            large = size - VNET > self._holds
            self._waited[large] += size + _FOR_ONE
            if large in self.kinds:
                return _with_messages(bytes(_BUFFER[:size]), messages)

    def put_back(self, frames: list[Frame]) -> None:
        """Have these read again, before all others."""
        self._back += reversed(frames)

    def release(self) -> int:
        number, self._number = self._number + len(self._back), 0
        return number

    def discard(self) -> None:
        """Lose what has arrived and was not read."""
        for _ in range(2):  # a flood would feed it for ever
            self.read(float("inf"))
            self.release()


def _with_messages(frame: bytes, messages: list[tuple[int, int, bytes]]) -> Frame:
    """Return the frame as it was on the wire, with its time."""
    stamp = 0
    for level, _, data in messages:
        if level == SOL_PACKET:
            status, *_, tci, tpid = _AUXDATA.unpack_from(data)
            if status & TP_STATUS_VLAN_VALID:
                frame = with_tag(frame, tci, tpid)
        else:
            seconds, nanoseconds = _TIME.unpack_from(data)
            stamp = seconds * 1_000_000_000 + nanoseconds
    return stamp, frame


class PacketRing(_PacketSocket):
    """The socket with a ring of `size` bytes for frames of an MTU. Making it takes a while."""

    def __init__(self, size: int, mtu: int) -> None:
        super().__init__()
        self._next = 0
        self._taken: list[int] = []
        self._slot = self.slot_of(mtu)
        self._slots = size // self._slot
        option = self.sock.setsockopt
        option(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        option(SOL_PACKET, PACKET_RX_RING, struct.pack("=IIII", size, 1, self._slot, self._slots))
        self._ring = memoryview(mmap.mmap(self.sock.fileno(), size))
        self._status = self._ring.cast("I")

    @staticmethod
    def slot_of(mtu: int) -> int:
        """Return the size of a slot for frames of that MTU."""
        return -(-(_BEFORE + _ETHERNET + _TAG + mtu) // 16) * 16

    @classmethod
    def holds(cls, mtu: int) -> int:
        """Return the largest frame, in bytes, for which such a slot has room."""
        return cls.slot_of(mtu) - _BEFORE

    def read(self, until: float) -> list[Frame]:
        found: list[Frame] = []
        stamp = 0
        ring, unpack, slot, slots = self._ring, _SLOT.unpack_from, self._slot, self._slots
        for number in range(self._next, self._next + min(_RING_AT_ONCE, slots)):
            start = number % slots * slot
            status, length, kept, mac, _, sec, nsec, tci, tpid = unpack(ring, start)
            stamp = sec * 1_000_000_000 + nsec
            if not status & TP_STATUS_USER or _is_later(stamp, until):
                break
            self._taken.append(start // 4)
            if kept < length:
                self._missed += 1
                continue
            first = start + mac - VNET
            frame: memoryview | bytes = ring[first : first + VNET + kept]
            if status & TP_STATUS_VLAN_VALID:
                frame = with_tag(frame, tci, tpid)
            found.append((stamp, frame))
        else:
            until = stamp  # there may be more
        self.read_until = until
        return found

    def release(self) -> int:
        status = self._status
        number = len(self._taken)
        for word in self._taken:
            status[word] = 0
        self._next = (self._next + number) % self._slots
        self._taken.clear()
        return number

    def stamps(self) -> set[int]:
        """When the frames that are in the ring arrived."""
        found = set()
        for number in range(self._slots):
            start = (self._next + number) % self._slots * self._slot
            status, *_, sec, nsec, _, _ = _SLOT.unpack_from(self._ring, start)
            if not status & TP_STATUS_USER:
                break
            found.add(sec * 1_000_000_000 + nsec)
        return found

    def discard(self) -> None:
        """Lose what has arrived and was not read."""
        for _ in range(self._slots // _RING_AT_ONCE + 2):  # a flood would feed it for ever
            self.read(float("inf"))
            self.release()
