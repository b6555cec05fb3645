"""Ports at which a network namespace can be reached. Standard library only."""

from __future__ import annotations

import contextlib

__all__ = ["open_ports"]

# Of proc(5)'s /proc/net/tcp and udp: TCP_LISTEN, and TCP_CLOSE, which a UDP socket has that is bound and not
# connected (include/net/tcp_states.h, udp_lib_get_port).
_STATES = {"tcp": "0A", "udp": "07"}


def open_ports(protocol: str) -> set[int]:
    """Return the ports of TCP sockets that listen, or of UDP sockets without a peer, of both IP versions.

    They are those of the network namespace in which this process is, which has one thread.
    """
    ports: set[int] = set()
    for name in (protocol, f"{protocol}6"):
        # A kernel without IPv6 has no second file.
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/net/{name}") as file:
            next(file)
            for line in file:
                _, local, _, state, *_ = line.split()
                if state == _STATES[protocol]:
                    ports.add(int(local.rpartition(":")[2], 16))
    return ports
