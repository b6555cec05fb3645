"""Kernel settings that a node's network has whatever the machine's are. Standard library only.

The kernel copies them from the machine's own network when it makes another one (net/ipv4/tcp_ipv4.c,
tcp_sk_init), or has a default that suits no lab. They are set before the first process or socket of a node.
"""

from __future__ import annotations

import contextlib
import functools
import os

__all__ = ["set_defaults"]

# Bytes: least, default, most. Linux 4.20 to 6.15 on a machine with 1 GiB or more (tcp_init).
_TCP_RMEM = "4096 131072 6291456"
_TCP_WMEM = "4096 16384 4194304"
# Linux's own default since 2.6.19. What the machine's kernel or its administrator did not allow to everybody
# is refused in a user namespace (tcp_set_default_congestion_control); reno is always there.
_CONGESTION_CONTROLS = ("cubic", "reno")
# The last group id that the kernel takes here (net/ipv4/sysctl_net_ipv4.c, ipv4_ping_group_range).
_LAST_GROUP = 2**31 - 1


def set_defaults() -> None:
    """Set TCP's buffers and congestion control, and let every group of the lab open ping sockets."""
    _set("tcp_rmem", _TCP_RMEM)
    _set("tcp_wmem", _TCP_WMEM)
    _set("ping_group_range", f"0 {_last_mapped_group()}")
    for name in _CONGESTION_CONTROLS:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            _set("tcp_congestion_control", name)
            return


def _set(name: str, value: str) -> None:
    fd = os.open(f"/proc/sys/net/ipv4/{name}", os.O_WRONLY)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


@functools.cache
def _last_mapped_group() -> int:
    """Return the last group id that is mapped in a row from 0 on."""
    last = 0
    with open("/proc/self/gid_map") as file:
        for first, _, count in sorted(tuple(map(int, line.split())) for line in file):
            if first > last + 1:
                break
            last = first + count - 1
    return min(last, _LAST_GROUP)
