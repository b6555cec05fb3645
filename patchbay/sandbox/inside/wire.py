"""Messages between the program and its agent, with descriptors, over SEQPACKET sockets.

A *channel* carries nothing but new *conversations* (the far end of a fresh socket pair); everything else is
sent in conversations, each about one thing, so that replies never wait for each other. Messages are made of
plain values, and travel as `marshal` writes them: built into Python, and the quickest. Standard library only.
"""

from __future__ import annotations

import array
import errno
import marshal
import os
import socket
import traceback
from typing import Any

__all__ = ["Message", "error_of", "explained", "failure", "pair", "receive", "send"]

Message = dict[str, Any]

# A datagram must fit the socket's send buffer (net.core.wmem_default, 208 KiB); larger texts,
# such as an environment or a batch of thousands of lines, travel in a memory file.
_INLINE = 32 * 1024
# SCM_MAX_FD in include/net/scm.h: more cannot travel at once.
_MOST_FDS = 253
# The version of marshal's format that every Python since 3.4 reads.
_VERSION = 4


# Exceptions that travel as what they are. An error of a class that is not here arrives as a `RuntimeError`.
_CLASSES = {
    each.__name__: each
    for each in (socket.gaierror, socket.herror, OSError, UnicodeError, ValueError, OverflowError, TypeError)
}


# What to do about errors that come from a limit rather than from the request.
_ADVICE = {
    errno.EAGAIN: "a limit of processes is reached: `ulimit -u`, or pids.max of a container",
    errno.EMFILE: "a limit of descriptors is reached: raise `ulimit -n`",
    errno.ENOSPC: "a limit of namespaces or of disk space is reached: see /proc/sys/user",
}


def explained(error: OSError) -> str:
    """Return what an error says, with what to do about it where that is known."""
    text = error.strerror or str(error)
    advice = _ADVICE.get(error.errno or 0)
    return f"{text} ({advice})" if advice else text


def failure(error: Exception) -> Message:
    """Return the answer to a request that failed."""
    name = next((each.__name__ for each in type(error).__mro__ if each.__name__ in _CLASSES), None)
    if name is None:
        return {"error": "RuntimeError", "args": ["".join(traceback.format_exception(error))]}
    if isinstance(error, OSError):
        file = [os.fsdecode(error.filename)] if error.filename is not None else []
        return {"error": name, "args": [error.errno or errno.EIO, explained(error), *file]}
    return {"error": name, "args": [str(error)]}


def error_of(message: Message) -> Exception | None:
    """Return the error that an answer reports, or None."""
    if "error" not in message:
        return None
    return _CLASSES.get(message["error"], RuntimeError)(*message["args"])


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new conversation."""
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
    """Return the next message and its descriptors; None when the other side has ended the conversation.

    Raises `OSError` (EMFILE) where this process has no room for the descriptors.
    """
    fds = array.array("i")
    try:
        data, rights, flags, _ = sock.recvmsg(
            _INLINE, socket.CMSG_LEN(_MOST_FDS * fds.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None, []
    for level, kind, content in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    received = list(fds)
    if flags & socket.MSG_CTRUNC:
        # The kernel drops descriptors for which the process has no number left (net/core/scm.c).
        for fd in received:
            os.close(fd)
        raise OSError(errno.EMFILE, explained(OSError(errno.EMFILE, os.strerror(errno.EMFILE))))
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
