"""Waiting until something in a node listens on a port."""

from __future__ import annotations

import operator
from collections.abc import Callable

import trio

from patchbay.sandbox.view import NodeView

__all__ = ["INTERVAL", "PROTOCOLS", "until_listening"]

PROTOCOLS = ("tcp", "udp")
# Seconds between two looks. The kernel tells nobody when a socket is bound, and a look takes 0.1 ms.
INTERVAL = 0.01


async def until_listening(view_of: Callable[[], NodeView], port: int, protocol: str, timeout: float) -> None:
    """See `Node.listening`. `view_of` returns the node's view, or raises if the node is gone."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"found protocol {protocol!r}; accepted: {', '.join(map(repr, PROTOCOLS))}")
    if not 0 < operator.index(port) < 65536:
        raise ValueError(f"found port {port}; accepted: 1 to 65535")
    until = trio.current_time() + timeout
    while True:
        view = view_of()
        answer = await view.agent.request({"ports": [view.ns, protocol, port]})
        if answer["open"]:
            return
        if trio.current_time() >= until:
            raise trio.TooSlowError(_nothing(view.node, protocol, port, timeout, answer["others"]))
        await trio.sleep(INTERVAL)


def _nothing(node: str, protocol: str, port: int, timeout: float, others: list[int]) -> str:
    after = f" after {timeout:g} s" if timeout else ""
    found = ", ".join(map(str, others)) or "none"
    return f"nothing in '{node}' listens on {protocol.upper()} port {port}{after}; open there: {found}"
