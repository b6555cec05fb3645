"""Finding programs, and starting them in this process's place or beside it. Standard library only.

A request is the message form of `patchbay.sandbox.spawn.Spawn`.
"""

from __future__ import annotations

import errno
import functools
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from patchbay.sandbox.inside import wire
from patchbay.sandbox.inside.server import CATCHABLE

__all__ = ["execute", "find_program", "find_tool", "start"]


def start(request: dict[str, Any], fds: Sequence[int]) -> int:
    """Start a program as the leader of a process group, where this process is now. Return its process id.

    `fds` become the descriptors that `targets` says. Raises `OSError` if the program cannot be started.
    """
    os.chdir(request["cwd"])
    program = find_program(request["argv"][0], request["env"])
    if request["user"] or request["tty"] or request["ignored"]:
        return _fork(program, request, fds)
    # Descriptors arrive above those that any command is given, so none is overwritten.
    actions = [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(fds, request["targets"], strict=True)]
    own = resource.getrlimit(resource.RLIMIT_NOFILE)
    _limit_files(request["files"])
    try:
        return os.posix_spawn(
            program,
            request["argv"],
            request["env"],
            file_actions=actions,
            setpgroup=0,
            setsigmask=(),
            setsigdef=CATCHABLE,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, own)


def _fork(program: bytes, request: dict[str, Any], fds: Sequence[int]) -> int:
    """Start a program with what posix_spawn(3) cannot do: another user, a terminal, ignored signals."""
    ours, theirs = wire.pair()
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            try:
                _lead(request["tty"])
                _exec(program, request, fds)
            except Exception as error:
                wire.send(theirs, wire.failure(error))
            finally:
                os._exit(127)
        theirs.close()
        # Exec closes the other end, which says that it worked.
        message, _ = wire.receive(ours)
    if message is not None:
        os.waitpid(pid, 0)
        raise wire.error_of(message) or OSError(errno.EIO, "the program did not start")
    return pid


def _lead(tty: str) -> None:
    """Lead a process group; with a terminal, lead a session that the terminal controls."""
    if not tty:
        os.setpgid(0, 0)
        return
    os.setsid()
    # The first terminal that a session leader opens becomes its controlling one.
    terminal = os.open(tty, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(terminal, number)


def execute(request: dict[str, Any], fds: Sequence[int]) -> None:
    """Become a program, as `subprocess.Popen` would start it: in this session, with `options` of it."""
    options = request["options"]
    if options["start_new_session"]:
        os.setsid()
    if options["process_group"] >= 0:
        os.setpgid(0, options["process_group"])
    if options["umask"] >= 0:
        os.umask(options["umask"])
    os.chdir(request["cwd"])
    _exec(find_program(request["argv"][0], request["env"]), request, fds)


def _exec(program: bytes, request: dict[str, Any], fds: Sequence[int]) -> None:
    """Become a program with the descriptors, limits, signals and user that the request says."""
    if not request["tty"]:
        _place(fds, request["targets"])
    _limit_files(request["files"])
    for signum in CATCHABLE:
        ignored = signum in request["ignored"]
        signal.signal(signum, signal.SIG_IGN if ignored else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if user := request["user"]:
        uid, gid, groups = user
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    os.execve(program, request["argv"], request["env"])


def _limit_files(soft: int) -> None:
    """Give programs the caller's limit of descriptors, because the agent has raised its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    within = soft != resource.RLIM_INFINITY and (soft <= hard or hard == resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft if within else hard, hard))


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
def find_tool(name: str, path: str) -> bytes:
    """Find a program that is started a thousand times."""
    return find_program(os.fsencode(name), {b"PATH": os.fsencode(path)})


def find_program(name: bytes, env: Mapping[bytes, bytes]) -> bytes:
    """Return the file that `name` means with the PATH of an environment. Raises `FileNotFoundError`."""
    if b"/" in name:
        return name
    for folder in env.get(b"PATH", os.fsencode(os.defpath)).split(os.fsencode(os.pathsep)):
        file = os.path.join(folder or b".", name)
        if os.access(file, os.X_OK) and not os.path.isdir(file):
            return file
    raise FileNotFoundError(errno.ENOENT, "no such program on PATH", name)
