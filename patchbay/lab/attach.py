"""Letting other processes of the same user run commands in a lab that this one holds open.

The holder listens on an abstract socket, because such a socket has no file that could be left behind.
A client is handed a conversation with the lab's agent, and from then on speaks with that itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from patchbay.errors import PatchbayError, did_you_mean
from patchbay.sandbox.inside import wire

if TYPE_CHECKING:
    from patchbay.lab.lab import Lab

__all__ = ["answer_clients", "connect", "held_labs", "listen"]

_PREFIX = "patchbay-inspect"


def _address(lab_id: str) -> bytes:
    return f"\0{_PREFIX}/{os.geteuid()}/{lab_id}".encode()


def held_labs() -> list[str]:
    """Return the ids of the labs that processes of this user hold open."""
    pattern = re.compile(rf"@{_PREFIX}/{os.geteuid()}/(\S+)$")
    found = (pattern.search(line) for line in Path("/proc/net/unix").read_text().splitlines())
    return sorted({match[1] for match in found if match})


def listen(lab_id: str) -> socket.socket:
    """Return the holder's socket. Raises `PatchbayError` if the id is taken."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.bind(_address(lab_id))
    except OSError:
        sock.close()
        raise PatchbayError(f"there is a lab held open as '{lab_id}' already; choose another --id") from None
    sock.listen()
    sock.setblocking(False)
    return sock


async def answer_clients(lab: Lab, listener: socket.socket) -> None:
    """Serve the clients of what `listen` gave, until cancelled."""
    while True:
        await trio.lowlevel.wait_readable(listener)
        client, _ = listener.accept()
        with client:
            if _same_user(client):
                await _answer(lab, client)


def _same_user(client: socket.socket) -> bool:
    # An abstract socket has no permissions of its own: unix(7), SO_PEERCRED.
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return uid in (os.geteuid(), 0)


async def _answer(lab: Lab, client: socket.socket) -> None:
    client.setblocking(False)
    with trio.move_on_after(5):  # a client that says nothing must not keep the others waiting
        await trio.lowlevel.wait_readable(client)
        try:
            message, _ = wire.receive(client)
        except (OSError, EOFError, ValueError):  # it has left, or is no client of ours
            return
        if message is None:
            return
        try:
            node = lab.node(message["node"])
            view = node._view()
            with view.agent.converse() as conversation:
                wire.send(client, {"ns": view.ns, "env": lab.env_vars()}, (conversation.fileno(),))
        except (KeyError, PatchbayError) as error:
            # A client that has left must not end the service of the others.
            with contextlib.suppress(OSError):
                wire.send(client, {"error": str(error.args[0])})
        except OSError as error:
            with contextlib.suppress(OSError):
                wire.send(client, {"error": f"the lab cannot serve '{message['node']}': {error.strerror}"})


def connect(node: str, lab_id: str | None) -> tuple[socket.socket, str, dict[str, str]]:
    """Return a conversation with the agent of a held lab, the node's namespace, and the lab's variables."""
    held = held_labs()
    if lab_id is None and len(held) != 1:
        advice = f"name one with --inspect: {', '.join(held)}" if held else "start one: patchbay inspect FILE"
        raise PatchbayError(f"{len(held) or 'no'} labs are held open; {advice}")
    wanted = lab_id or held[0]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        try:
            sock.connect(_address(wanted))
        except OSError:
            raise PatchbayError(f"no lab is held open as '{wanted}'{did_you_mean(wanted, held)}") from None
        sock.settimeout(10)
        try:
            wire.send(sock, {"node": node})
            message, fds = wire.receive(sock)
        except TimeoutError:
            why = "within 10 s, because its program is busy"
            raise PatchbayError(f"the lab '{wanted}' gave no answer {why}") from None
    if message is None:
        raise PatchbayError(f"the lab '{wanted}' gave no answer")
    if "error" in message:
        raise PatchbayError(message["error"])
    conversation = socket.socket(fileno=fds[0])
    conversation.setblocking(True)
    return conversation, message["ns"], message["env"]
