"""Relay for a process in a lab: this process passes signals in and the exit status out.

When it dies, its conversation ends, and with it the command in the lab.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from typing import Any

from patchbay.sandbox.inside import wire

__all__ = ["end_like", "refused", "relay"]

_NOT_PASSED = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU}


def relay(conversation: socket.socket, request: wire.Message, fds: tuple[int, ...]) -> int:
    """Start the command, pass on every signal, and return its wait status."""

    def pass_on(signum: int, _frame: Any) -> None:
        wire.send(conversation, {"signal": [signum, False]})

    # Held back until the request is on its way: what comes after it is for the command.
    passed_on = signal.valid_signals() - _NOT_PASSED
    signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)
    for signum in passed_on:
        signal.signal(signum, pass_on)
    try:
        wire.send(conversation, request, fds)
    except BrokenPipeError:
        return int(signal.SIGKILL)  # the lab is gone
    signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
    started, _ = wire.receive(conversation)
    if started is None:
        return int(signal.SIGKILL)
    if error := wire.error_of(started):
        return refused(error)
    ended, _ = wire.receive(conversation)
    return int(ended["status"]) if ended else int(signal.SIGKILL)


def refused(error: Exception) -> int:
    """Print why a command did not start, and return the wait status that a shell's would have.

    Its exit status is 127 where there is no such program, and 126 where the program cannot be run (POSIX, XCU
    section 2.8.2).
    """
    print(error, file=sys.stderr)
    return (127 if isinstance(error, FileNotFoundError) else 126) << 8


def end_like(status: int) -> None:
    """End as the command ended: by the same signal, or with the same exit status."""
    if os.WIFSIGNALED(status):
        signum = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if signum != signal.SIGKILL:
            signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    os._exit(os.WEXITSTATUS(status))
