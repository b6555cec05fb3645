"""Errors of a kernel in a process."""

from __future__ import annotations

__all__ = ["GuestDiedError", "GuestTimeoutError", "KernelError", "VmError", "tail"]


class VmError(Exception):
    """The root of this package's errors."""


class KernelError(VmError):
    """There is no kernel, and why: something that building it needs is missing, or the build failed."""


class GuestDiedError(VmError):
    """The guest ended without reporting how its command ended."""


class GuestTimeoutError(VmError):
    """The command did not end in time; the guest was ended."""


def tail(text: str, lines: int = 30) -> str:
    """Return the end of a long output, where its error is."""
    return "\n".join(text.rstrip().splitlines()[-lines:])
