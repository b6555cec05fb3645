"""The tools that labs need, and those that this machine lacks."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator

from patchbay.errors import Lack

__all__ = ["TOOLS", "lacks", "namespace_lacks", "tool_path", "which"]

# What a lab cannot be without, and the package that has it on Debian and Ubuntu.
TOOLS = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables"}

_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def tool_path() -> str:
    """PATH, and behind it the folders of system tools that an ordinary user's PATH leaves out."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*folders, *(sbin for sbin in _SBIN if sbin not in folders)])


def which(name: str) -> str | None:
    """Return the path of a tool, or None."""
    return shutil.which(name, path=tool_path())


# How to raise what was reached: ulimit(1p), and namespaces(7).
_LIMITS = {
    errno.EAGAIN: "ulimit -u 4096, or start the container with a larger --pids-limit",
    errno.ENOSPC: "for s in user net mnt pid uts ipc; do sudo sysctl -w user.max_${s}_namespaces=30000; done",
}


def lacks() -> list[Lack]:
    """Return everything that keeps this machine from running a lab, as far as files tell."""
    if sys.platform != "linux":
        return [Lack(f"a Linux kernel (this is {sys.platform})", "use patchbay-vm, or a Linux machine")]
    return [*_missing_tools(), *_forbidden_namespaces()]


def _missing_tools() -> Iterator[Lack]:
    missing = [tool for tool in TOOLS if which(tool) is None]
    for tool in missing:
        yield Lack(f"the tool '{tool}' is not on PATH", f"sudo apt-get install {TOOLS[tool]}")


def _forbidden_namespaces() -> Iterator[Lack]:
    if not os.path.exists("/proc/self/ns/user"):
        yield Lack("the kernel has no user namespaces", "use a kernel with CONFIG_USER_NS=y")
    elif _setting("user/max_user_namespaces") == "0":
        yield Lack("user namespaces are switched off", "sudo sysctl -w user.max_user_namespaces=15000")
    elif os.geteuid() != 0 and _setting("kernel/unprivileged_userns_clone") == "0":
        yield Lack(
            "user namespaces are forbidden to ordinary users",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        )
    elif os.geteuid() != 0 and _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        yield Lack(
            "AppArmor takes the capabilities out of ordinary users' namespaces (Ubuntu 24.04 and later)",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        )


def namespace_lacks(stage: str, error: Exception | None) -> list[Lack]:
    """Return what must be wrong where making namespaces failed with `error`."""
    if isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.ENOSPC):
        limit = "processes" if error.errno == errno.EAGAIN else "namespaces"
        text = f"a limit of {limit} is reached ({stage}: {os.strerror(error.errno)})"
        return [Lack(text, _LIMITS[error.errno])]
    return list(_forbidden_namespaces()) or [
        Lack(
            f"this process may not make the namespaces of a lab ({stage}: {error})",
            "in a container: start it with --privileged, or with --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined --security-opt systempaths=unconfined --cap-add SYS_ADMIN",
        )
    ]


def _setting(name: str) -> str | None:
    try:
        with open(f"/proc/sys/{name}") as file:
            return file.read().strip()
    except OSError:
        return None
