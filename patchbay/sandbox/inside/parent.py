"""The parent of the agent, outside of the lab's pid namespace: makes the program's own children in the lab.

It is a child of the program, and its own children begin in the lab's pid namespace, because it has unshared
that; so a sibling of it is a true child of the program, and dies with the lab all the same. The agent itself
cannot make one, being process 1 (kernel/fork.c, copy_process). Standard library only.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import NoReturn

from patchbay.sandbox.inside import kernel, wire
from patchbay.sandbox.inside.machine import MACHINE
from patchbay.sandbox.inside.programs import execute

__all__ = ["serve"]


def serve(agent: socket.socket, proc: int) -> None:
    """Start what the agent asks for, until the agent ends.

    A request comes with the conversation in which the program waits, the first process of the node, and
    the descriptors that the process is to have. The answer is the process id, and an error if there is one.
    `proc` is a /proc that knows this process: the lab's own, which the agent mounts, does not.
    """
    lab = os.open("self/ns/pid_for_children", os.O_RDONLY, dir_fd=proc)
    while True:
        request, fds = wire.receive(agent)
        if request is None:
            return
        with socket.socket(fileno=fds[0]) as conversation:
            try:
                wire.send(conversation, {"pid": _start(conversation, request, fds[1:], lab)})
            except Exception as error:
                wire.send(conversation, wire.failure(error))
        for fd in fds[1:]:
            os.close(fd)


def _start(conversation: socket.socket, request: wire.Message, fds: Sequence[int], lab: int) -> int:
    """Start a process of the node, and return its id. If it cannot start, the conversation gets the error."""
    kernel.setns(fds[0], kernel.CLONE_NEWPID)
    try:
        pid = kernel.fork_sibling()
        if pid == 0:
            _be(conversation, request, fds)
    finally:
        kernel.setns(lab, kernel.CLONE_NEWPID)
    return pid


def _be(conversation: socket.socket, request: wire.Message, fds: Sequence[int]) -> NoReturn:
    """Go to the node and become the program. The conversation closes with exec, which says that it worked."""
    try:
        kernel.setns(fds[0], MACHINE & ~kernel.CLONE_NEWPID)
        execute(request, fds[1:])
    except Exception as error:
        wire.send(conversation, wire.failure(error))
    finally:
        os._exit(127)
