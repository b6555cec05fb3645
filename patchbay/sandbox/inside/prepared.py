"""The prepared interpreter: a child of the program that has loaded what agents need, and is forked for each.

To start Python takes longer than to open a small lab; to fork it takes 1 ms. The interpreter is in the
program's namespaces, and holds nothing. It ends when the program does, or when it was not needed for a while.
Standard library only.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys

from patchbay.sandbox.inside import agent, kernel, wire

__all__ = ["main"]

# Seconds: a program that goes on without labs is left alone.
_IDLE = 2.0


def main() -> None:
    """Fork an agent for each message, until the program ends."""
    # Ctrl-C and its like are for the program, in whose process group this is: its clean-up needs the labs.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    channel, program = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    os.set_inheritable(channel.fileno(), False)
    os.set_inheritable(program, False)
    while (message := _next(channel, program)) is not None:
        request, fds = message
        try:
            forked = kernel.fork_sibling()
        except OSError as error:
            _report(fds[0], error)
            forked = -1
        if forked == 0:
            channel.close()
            agent.main(request, program, *fds)
            os._exit(0)
        for fd in fds:
            os.close(fd)


def _report(channel: int, error: OSError) -> None:
    """Tell a lab why it has no agent."""
    with socket.socket(fileno=os.dup(channel)) as lab:
        wire.send(lab, {"failed": "fork", **wire.failure(error)})


def _next(channel: socket.socket, program: int) -> tuple[wire.Message, list[int]] | None:
    """Return the next request; None when there will be no more."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(program, select.POLLIN)
    ready = poll.poll(_IDLE * 1000)
    if not ready:
        # From here on the program's requests fail at once, so that none is lost.
        channel.shutdown(socket.SHUT_RD)
    elif any(fd == program for fd, _ in ready):
        return None
    request, fds = wire.receive(channel)
    return (request, fds) if request is not None else None
