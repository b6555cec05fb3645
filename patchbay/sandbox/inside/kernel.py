"""The system calls that the standard library lacks (until Python 3.12). Standard library only."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct

__all__ = [
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "bind",
    "die_with_parent",
    "fork_sibling",
    "make_private",
    "mount",
    "setns",
    "sync_carrier",
    "unmount",
    "unshare",
]

# include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PARENT = 0x00008000
# include/uapi/linux/mount.h
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2  # umount2(2)
# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1
# include/uapi/linux/sockios.h and ethtool.h
SIOCETHTOOL = 0x8946
ETHTOOL_GLINK = 0x0000000A

# clone(2) as a system call: the C library's function wants a stack. Elsewhere the number is 120.
SYS_CLONE = {"x86_64": 56, "aarch64": 220, "riscv64": 220, "loongarch64": 220}

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} ({what})")


def unshare(flags: int) -> None:
    """Call unshare(2): give this process new namespaces."""
    _checked(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Call setns(2): this thread enters the namespaces of a descriptor that `kind` names.

    A descriptor of a process names all namespaces of the process (Linux 5.8).
    """
    _checked(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str | None = None) -> None:
    """Call mount(2)."""
    _checked(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            options.encode() if options else None,
        ),
        f"mount {target}",
    )


def bind(source: str, target: str) -> None:
    """Show `source`, with all that is mounted below it, at `target` too.

    Always recursive: what another user namespace mounted may not be taken apart (EINVAL).
    """
    mount(source, target, None, MS_BIND | MS_REC)


def unmount(target: str) -> None:
    """Call umount2(2) with MNT_DETACH: the mount leaves the tree now, and is freed when nobody uses it."""
    _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def make_private() -> None:
    """Keep every later mount from being seen outside."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)


def die_with_parent(signum: int) -> None:
    """Ask for `signum` when the parent process ends: prctl(PR_SET_PDEATHSIG)."""
    _checked(_libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signum), 0, 0, 0), "prctl")


def fork_sibling() -> int:
    """Fork a process whose parent is this one's: return its process id here, and 0 there.

    For process 1 of a pid namespace the kernel refuses it (kernel/fork.c, copy_process). Python's own fork
    does a little more, for threads and locks, which a program with one thread does not miss.
    """
    flags = ctypes.c_ulong(CLONE_PARENT | signal.SIGCHLD)
    pid: int = _libc.syscall(SYS_CLONE.get(os.uname().machine, 120), flags, None, None, None, None)
    _checked(min(pid, 0), "clone")
    return pid


def sync_carrier(sock: socket.socket, ifname: str) -> None:
    """Make an interface's new carrier effective now, instead of up to 1 s later.

    A bridge's first carrier is not urgent for the kernel's link watch (net/core/link_watch.c), which
    works once a second, and until then its queue is `noop` and drops everything. Asking for the link
    by ethtool does the waiting work at once (ethtool_op_get_link -> linkwatch_sync_dev).
    """
    answer = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_GLINK, 0))
    request = struct.pack("16sP8x", ifname.encode(), ctypes.addressof(answer))
    fcntl.ioctl(sock, SIOCETHTOOL, request)
