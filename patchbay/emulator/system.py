"""System calls that the standard library lacks: precise waiting, socket filters, news of interfaces."""

from __future__ import annotations

import ctypes
import select
import socket
import struct
import time

__all__ = ["Cable", "Step", "Waiter", "attach_filter", "keep_memory", "wall_ahead"]

# include/uapi/linux/prctl.h
PR_SET_TIMERSLACK = 29
# include/uapi/linux/rtnetlink.h, if.h and asm-generic/socket.h
RTMGRP_LINK = 1
RTM_NEWLINK, RTM_DELLINK = 16, 17
IFF_UP, IFF_LOWER_UP = 1, 1 << 16
SO_ATTACH_FILTER = 26

# malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
_KEPT = 4 << 20

# struct nlmsghdr: len, type, flags, seq, pid; struct ifinfomsg: family, type, index, flags
_NEWS = struct.Struct("=4xH10xB3xiI")

# struct sock_filter: code, jump if true, jump if false, operand
Step = tuple[int, int, int, int]

_libc = ctypes.CDLL(None, use_errno=True)


class _Polled(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Waiter:
    """Waits for descriptors to the nanosecond: ppoll(2) for an epoll, which counts milliseconds by itself."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._polled = _Polled(self._epoll.fileno(), select.POLLIN, 0)
        self._time = _Time()
        self._polled_pointer, self._time_pointer = ctypes.byref(self._polled), ctypes.byref(self._time)
        self._one = ctypes.c_ulong(1)
        # By default a sleep may last 50 µs longer, so that wake-ups fall together.
        _libc.prctl(PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)

    def watch(self, fd: int) -> None:
        self._epoll.register(fd, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def wait(self, nanoseconds: float | None) -> list[tuple[int, int]]:
        """Return each ready descriptor with its events (epoll(7)). None waits for ever, 0 not at all."""
        if nanoseconds != 0 and not self._poll(nanoseconds):
            return []
        return self._epoll.poll(0)

    def _poll(self, nanoseconds: float | None) -> bool:
        pointer = None
        if nanoseconds is not None:
            self._time.seconds, self._time.nanoseconds = divmod(int(nanoseconds), 1_000_000_000)
            pointer = self._time_pointer
        return int(_libc.ppoll(self._polled_pointer, self._one, pointer, None)) > 0


class Cable:
    """Tells by netlink when one of two interfaces stops, starts, or is deleted.

    An interface stops when it is set down and when its peer is (it loses its carrier): both cut the cable.
    """

    def __init__(self, *indexes: int) -> None:
        self.gone = False
        self._down: set[int] = set()
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self.sock.setblocking(False)
        attach_filter(self.sock, _news_of(indexes))
        self.sock.bind((0, RTMGRP_LINK))

    def was_cut(self) -> bool:
        """Read the news; whether either interface was working and stopped."""
        cut = False
        while True:
            try:
                news = self.sock.recv(1 << 16)
            except BlockingIOError:
                return cut
            except OSError:  # ENOBUFS: more news than fit, so some of it may have been this
                cut = True
                continue
            kind, family, index, flags = _NEWS.unpack_from(news)
            if family:  # of a bridge about its ports: "deleted" there is an interface that left the bridge
                continue
            self.gone |= kind == RTM_DELLINK
            works = kind == RTM_NEWLINK and flags & IFF_UP and flags & IFF_LOWER_UP
            cut |= not works and index not in self._down
            (self._down.discard if works else self._down.add)(index)


def _news_of(indexes: tuple[int, ...]) -> list[Step]:
    """Let news of other interfaces wake nobody: in a large lab there are thousands."""
    # nlmsghdr (16 bytes), then ifinfomsg with the index at 4. A filter loads in network order.
    load, equal, give = 0x20, 0x15, 0x06
    compared = [
        (equal, left, 0, socket.htonl(index))
        for left, index in zip(range(len(indexes), 0, -1), indexes, strict=True)
    ]
    return [(load, 0, 0, 20), *compared, (give, 0, 0, 0), (give, 0, 0, 0xFFFFFFFF)]


def attach_filter(sock: socket.socket, program: list[Step]) -> None:
    """Have the kernel drop what a classic BPF program gives 0 for."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    option = struct.pack("HP", len(program), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)


def wall_ahead() -> int:
    """Return by how many ns the wall clock, which stamps packets, is ahead of the monotonic clock."""
    tries = 3
    while True:
        before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        tries -= 1
        if after - before < 5_000 or not tries:  # else something else ran in between
            return wall - (before + after) // 2


def keep_memory() -> None:
    """Have the C library keep freed memory: given back after each large frame, it costs a page fault
    for every 4 KiB of the next. Only glibc has the call.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(M_TRIM_THRESHOLD, _KEPT)
        _libc.mallopt(M_MMAP_THRESHOLD, _KEPT)
