"""A command to be started in a node, with all that the caller's own environment decides about it."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from patchbay.sandbox.accounts import Account
from patchbay.sandbox.inside import wire

__all__ = ["Argv", "Folder", "Spawn", "Variables"]

Word = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Argv = Sequence[Word]
Variables = Mapping[str, Word] | Mapping[bytes, Word]
Folder = Word

# Python ignores these for itself, and `subprocess` gives them back to programs (restore_signals).
_GIVEN_BACK = {signal.SIGPIPE, signal.SIGXFSZ}


class Spawn:
    """A command with its environment, checked as `subprocess` checks them.

    Raises `TypeError` for what is neither text nor a path, `ValueError` for a null byte or an impossible name
    of a variable, both before anything is started.
    """

    def __init__(
        self,
        argv: Argv,
        env: Variables | None = None,
        cwd: Folder | None = None,
        account: Account | None = None,
    ) -> None:
        if isinstance(argv, str | bytes | os.PathLike) or not argv:
            raise TypeError(f"argv must be a list such as ['ping', '-c1', host], not {argv!r}")
        self._argv = [_encoded(word) for word in argv]
        given: Mapping[Any, Word] = env or {}
        own = {_name(name): _encoded(value) for name, value in given.items()}
        # As bytes, because to encode an environment again takes as long as to start a process in a node.
        self._env = {**os.environb, **own}
        self._cwd = _encoded(os.path.abspath(cwd) if cwd is not None else os.getcwd())
        # Root in a lab is root already, and a lab with one id cannot set any.
        self._account = account if account is not None and account.uid != 0 else None

    @property
    def args(self) -> list[str]:
        """Return the command as text."""
        return [os.fsdecode(word) for word in self._argv]

    def request(self, ns: str, targets: Sequence[int], **more: Any) -> wire.Message:
        """Return the message to the agent. The descriptors with it get the numbers `targets`."""
        account = self._account
        return {
            "ns": ns,
            "argv": self._argv,
            "env": self._env,
            "cwd": self._cwd,
            "targets": list(targets),
            "tty": "",
            "user": account and (account.uid, account.gid, list(account.groups)),
            "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "ignored": _ignored_signals(),
            **more,
        }


def _encoded(word: Word) -> bytes:
    encoded = os.fsencode(word)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded


def _name(name: str | bytes) -> bytes:
    encoded = _encoded(name)
    if not encoded or b"=" in encoded:
        raise ValueError(f"illegal environment variable name {name!r}")
    return encoded


def _ignored_signals() -> list[int]:
    """Return the signals that this program ignores, and so do the programs that it starts (execve(2)).

    The kernel's mask is read (proc(5)), because to ask Python for each signal takes four times as long.
    """
    status = os.open("/proc/self/status", os.O_RDONLY)
    try:
        _, _, rest = os.read(status, 1 << 16).partition(b"SigIgn:")
    finally:
        os.close(status)
    mask = int(rest.split(maxsplit=1)[0], 16)
    return [number for number in range(1, 65) if mask >> (number - 1) & 1 and number not in _GIVEN_BACK]
