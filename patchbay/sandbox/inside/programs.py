"""Finding programs, and starting them in this process's place or beside it. Standard library only."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Sequence
from typing import Any

from patchbay.sandbox.inside.server import CATCHABLE

__all__ = ["execute", "find_program", "find_tool", "start"]


def start(request: dict[str, Any], fds: Sequence[int]) -> int:
    """Start a program in a session of its own, where this process is now. Return its process id.

    `fds` become the descriptors that `targets` says; `tty` is a terminal that is to be its controlling one.
    """
    actions: list[tuple[Any, ...]] = []
    if tty := request.get("tty"):
        # The first terminal that a session leader opens becomes its controlling one.
        actions.append((os.POSIX_SPAWN_OPEN, 0, tty, os.O_RDWR, 0))
        actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    # Descriptors arrive above those that any command is given, so none is overwritten.
    actions += [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(fds, request["targets"], strict=True)]
    argv, environ = request["argv"], request["env"]
    os.chdir(request["cwd"])
    return os.posix_spawn(
        find_program(argv[0], environ.get("PATH", os.defpath)),
        argv,
        environ,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=CATCHABLE,
    )


def execute(request: dict[str, Any], fds: Sequence[int]) -> None:
    """Become a program, as `subprocess.Popen` would start it: in this session, with `options` of it."""
    options = request["options"]
    if options["start_new_session"]:
        os.setsid()
    if options["process_group"] >= 0:
        os.setpgid(0, options["process_group"])
    if options["umask"] >= 0:
        os.umask(options["umask"])
    _place(fds, request["targets"])
    os.chdir(request["cwd"])
    argv, environ = request["argv"], request["env"]
    program = find_program(argv[0], environ.get("PATH", os.defpath))
    # A signal that Python or the program ignores would stay ignored after exec.
    for signum in CATCHABLE:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execve(program, argv, environ)


def _place(fds: Sequence[int], targets: Sequence[int]) -> None:
    """Give the descriptors the numbers that they are to have; all others close with exec."""
    above = max([*fds, *targets, 2]) + 1
    copies = []
    for fd in fds:
        copy = os.dup(fd)
        while copy < above:  # it may be the target of another
            copy = os.dup(fd)
        copies.append(copy)
    for copy, target in zip(copies, targets, strict=True):
        os.dup2(copy, target)


@functools.lru_cache(maxsize=64)
def find_tool(name: str, path: str) -> str:
    """Find a program that is started a thousand times."""
    return find_program(name, path)


def find_program(name: str, path: str) -> str:
    """Return the file that `name` means on `path`. Raises `FileNotFoundError`."""
    if "/" in name:
        return name
    for folder in path.split(os.pathsep):
        file = os.path.join(folder or ".", name)
        if os.access(file, os.X_OK) and not os.path.isdir(file):
            return file
    raise FileNotFoundError(2, f"no such program on PATH: {name}")
