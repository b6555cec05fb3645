"""The parent of the agent, outside of the lab's pid namespace: makes the program's own children in the lab.

It is a child of the program, and its own children begin in the lab's pid namespace, because it has unshared
that; so a sibling of it is a true child of the program, and dies with the lab all the same. The agent itself
cannot make one, being process 1 (kernel/fork.c, copy_process). Standard library only.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from patchbay.sandbox.inside import kernel, wire
from patchbay.sandbox.inside.programs import execute

__all__ = ["serve"]


def serve(agent: socket.socket) -> None:
    """Start what the agent asks for, until the agent ends.

    A request comes with the conversation in which the program waits, the node's network and mounts, and
    the descriptors that the process is to have. The answer is the process id, and an error if there is one.
    """
    while True:
        request, fds = wire.receive(agent)
        if request is None:
            return
        with socket.socket(fileno=fds[0]) as conversation:
            pid = kernel.fork_sibling()
            if pid == 0:
                _start(conversation, request, fds[1:])
            wire.send(conversation, {"pid": pid})
        for fd in fds[1:]:
            os.close(fd)


def _start(conversation: socket.socket, request: wire.Message, fds: Sequence[int]) -> None:
    """Go to the node and become the program. The conversation closes with exec, which says that it worked."""
    try:
        kernel.setns(fds[0], kernel.CLONE_NEWNET)
        kernel.setns(fds[1], kernel.CLONE_NEWNS)
        execute(request, fds[2:])
    except wire.Refused as error:
        wire.send(conversation, wire.failure(error))
    finally:
        os._exit(127)
