"""Mounts that give the processes of a lab files of their own. Standard library only."""

from __future__ import annotations

import contextlib
import os

from patchbay.sandbox.inside import kernel

__all__ = ["fresh_proc", "own_sysfs", "prepare_mounts"]


def prepare_mounts() -> None:
    kernel.make_private()
    # Refused in a container with parts of /proc masked: the outer one works, and shows more.
    with contextlib.suppress(PermissionError):
        kernel.mount("proc", "/proc", "proc")
    _private_run()
    os.makedirs("/run/netns")
    os.makedirs("/run/patchbay/proc")
    _own_etc_files()


def _private_run() -> None:
    """A /run of the lab's own for `ip netns`, with everything else that was there bound back into it."""
    old = os.open("/run", os.O_PATH | os.O_DIRECTORY)
    entries = sorted(os.listdir("/run"))
    kernel.mount("tmpfs", "/run", "tmpfs", options="mode=755")
    for name in entries:
        source, target = f"/proc/self/fd/{old}/{name}", f"/run/{name}"
        if name in ("netns", "patchbay"):
            continue
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
            continue
        if os.path.isdir(source):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        kernel.bind(source, target)
    os.close(old)


def _own_etc_files() -> None:
    """The lab's hosts and resolv.conf over those in /etc, which need not exist."""
    names = ("hosts", "resolv.conf")
    if not all(os.path.isfile(f"/etc/{name}") for name in names):
        _writable_etc(names)
    for name in names:
        with open(f"/run/patchbay/{name}", "w"):
            kernel.bind(f"/run/patchbay/{name}", f"/etc/{name}")


def _writable_etc(names: tuple[str, ...]) -> None:
    """A layer over /etc in which the missing files can be put."""
    os.makedirs("/run/patchbay/etc/upper")
    os.makedirs("/run/patchbay/etc/work")
    layers = "lowerdir=/etc,upperdir=/run/patchbay/etc/upper,workdir=/run/patchbay/etc/work"
    kernel.mount("overlay", "/etc", "overlay", options=layers)
    for name in names:
        path = f"/etc/{name}"
        if not os.path.isfile(path):
            if os.path.lexists(path):
                os.unlink(path)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def fresh_proc() -> int | None:
    """Another instance of proc, kept by its descriptor alone; None where that is refused."""
    try:
        kernel.mount("proc", "/run/patchbay/proc", "proc")
    except OSError:
        return None
    fd = os.open("/run/patchbay/proc", os.O_PATH)
    kernel.unmount("/run/patchbay/proc")
    return fd


def own_sysfs() -> None:
    """Let /sys show the network of this process. Control groups stay as they were."""
    groups = os.open("/sys/fs/cgroup", os.O_PATH) if os.path.isdir("/sys/fs/cgroup") else None
    try:
        kernel.mount("sysfs", "/sys", "sysfs")
        if groups is not None:
            kernel.bind(f"/proc/self/fd/{groups}", "/sys/fs/cgroup")
    except OSError:
        pass  # a container with parts of /sys masked: the old view stays; `patchbay doctor` says so
    finally:
        if groups is not None:
            os.close(groups)
