"""Look-ups of names and addresses as a node's processes would do them."""

from __future__ import annotations

import operator
import socket
from typing import Any

from patchbay.sandbox.view import NodeView, in_node

__all__ = ["look_up"]


async def look_up(view: NodeView, function: str, *args: Any) -> Any:
    """Call a function of `socket` in the node: "getaddrinfo" or "getnameinfo".

    Raises what the function raises: `socket.gaierror`, and for wrong arguments `TypeError`, `OverflowError`
    or `UnicodeError`.
    """
    request = {"ns": view.ns, "function": function, "args": [_plain(arg) for arg in args]}
    try:
        found = (await view.agent.request({"look-up": request}))["found"]
    except (socket.gaierror, socket.herror):
        raise
    except OSError as error:
        raise in_node(view.node, error) from None
    return [_with_enums(*entry) for entry in found] if function == "getaddrinfo" else tuple(found)


def _plain(arg: Any) -> Any:
    """Return an argument as a value that can travel: no enum, and no subclass of text."""
    if arg is None or isinstance(arg, bytes):
        return arg
    if isinstance(arg, str):
        return str.__str__(arg)
    if isinstance(arg, tuple):
        return tuple(map(_plain, arg))
    return operator.index(arg)


def _with_enums(family: int, kind: int, proto: int, canonical: str, address: Any) -> tuple[Any, ...]:
    return socket.AddressFamily(family), socket.SocketKind(kind), proto, canonical, tuple(address)
