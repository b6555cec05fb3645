"""A process that stands for one in a lab: it passes signals in and the exit status out.

Started by its path (`python -I -S relay.py CONVERSATION REQUEST`) as a child of whoever wants a true child.
When it dies, its conversation ends, and with it the command in the lab. Standard library only.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from typing import Any

if __package__:
    from patchbay.sandbox import wire
else:  # started by its path, without site-packages
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import wire  # type: ignore[import-not-found, no-redef]

__all__ = ["encode", "end_like", "main", "relay"]

_NOT_PASSED = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU}


def encode(request: wire.Message) -> bytes:
    """A request as the relay reads it from its memory file."""
    return json.dumps(request).encode()


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
    started, passed = wire.receive(conversation)
    if started is None:
        return int(signal.SIGKILL)
    if "errno" in started:
        print(started["error"], file=sys.stderr)
        # As a shell does: 127 where there is no such program, 126 where it cannot be run.
        return (127 if started["errno"] == 2 else 126) << 8
    for fd in passed:
        os.close(fd)
    ended, _ = wire.receive(conversation)
    return int(ended["status"]) if ended else int(signal.SIGKILL)


def end_like(status: int) -> None:
    """End as the command ended: by the same signal, or with the same exit status."""
    if os.WIFSIGNALED(status):
        signum = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if signum != signal.SIGKILL:
            signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    os._exit(os.WEXITSTATUS(status))


def main() -> None:
    conversation = socket.socket(fileno=int(sys.argv[1]))
    conversation.setblocking(True)
    with open(int(sys.argv[2]), "rb") as file:
        file.seek(0)
        request = json.load(file)
    end_like(relay(conversation, request, (0, 1, 2)))


if __name__ == "__main__":
    main()
