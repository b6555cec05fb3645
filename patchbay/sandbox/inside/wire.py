"""How the program and its agent speak: messages with descriptors over SEQPACKET sockets.

A *channel* carries nothing but new *conversations* (the far end of a fresh socket pair); everything else is
said in a conversation, each about one thing, so that replies never wait for each other. Messages are made of
plain values, and travel as `marshal` writes them: built into Python, and the quickest. Standard library only.
"""

from __future__ import annotations

import array
import errno
import marshal
import os
import socket
from typing import Any

__all__ = ["Message", "Refused", "error_of", "failure", "pair", "receive", "send"]

Message = dict[str, Any]

# A datagram must fit the socket's send buffer (net.core.wmem_default, 208 KiB); larger texts,
# such as an environment or a batch of thousands of lines, travel in a memory file.
_INLINE = 32 * 1024
# SCM_MAX_FD in include/net/scm.h: more cannot travel at once.
_MOST_FDS = 253
# The version of marshal's format that every Python since 3.4 reads.
_VERSION = 4


# The errors of a request that the kernel refuses, or Python before the kernel.
Refused = (OSError, ValueError, TypeError, OverflowError)


def failure(error: Exception) -> Message:
    """Return the answer to a request that failed by one of `Refused`."""
    if not isinstance(error, OSError):
        return {"errno": 0, "error": str(error)}
    what = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return {"errno": error.errno or errno.EIO, "error": what or str(error)}


def error_of(message: Message) -> OSError | ValueError | None:
    """Return the error that an answer tells of, if it does."""
    if "errno" not in message:
        return None
    number, text = message["errno"], message["error"]
    return OSError(number, text) if number else ValueError(text)


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a new conversation."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, message: Message, fds: tuple[int, ...] = ()) -> None:
    """Send `message` with copies of `fds`."""
    data = marshal.dumps(message, _VERSION)
    if len(data) <= _INLINE:
        _send(sock, data, fds)
        return
    memory = os.memfd_create("patchbay-message")
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(memory, view) :]
        _send(sock, b"", (*fds, memory))
    finally:
        os.close(memory)


def _send(sock: socket.socket, data: bytes, fds: tuple[int, ...]) -> None:
    # An empty datagram would read as the end of the conversation.
    data = data or b"+"
    if fds:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
    else:
        sock.send(data, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[Message | None, list[int]]:
    """The next message and its descriptors; None when the other side has ended the conversation."""
    fds = array.array("i")
    try:
        data, rights, _, _ = sock.recvmsg(
            _INLINE, socket.CMSG_LEN(_MOST_FDS * fds.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None, []
    for level, kind, content in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    received = list(fds)
    if not data:
        return None, received
    if data == b"+":
        data = _read_memory(received.pop())
    message: Message = marshal.loads(data)
    return message, received


def _read_memory(memory: int) -> bytes:
    try:
        return os.pread(memory, os.fstat(memory).st_size, 0)
    finally:
        os.close(memory)
