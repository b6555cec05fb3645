"""Mounts that give the processes of a lab and of its nodes files of their own. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from patchbay.sandbox.inside import kernel

__all__ = ["fresh_proc", "mount_machine", "own_proc", "prepare_mounts"]

# Files in /etc of which each node has its own, and those that all nodes of a lab share.
_NAMES = ("hosts", "resolv.conf")
_NAME_SERVICES = "nsswitch.conf"
_HOST_CONF = "host.conf"
_SHARED = (_NAME_SERVICES, _HOST_CONF)
# host.conf(5): without the line glibc finds the first address of a name in hosts alone.
_ALL_ADDRESSES = "multi on\n"
# Only files and then DNS, whatever the machine asks; other databases, such as accounts, are the machine's.
_HOSTS_SOURCES = "hosts: files dns"


def prepare_mounts() -> None:
    """Mount what a lab has of its own: /proc, /run, and places for what its nodes have of their own."""
    kernel.make_private()
    own_proc()
    _own_run()
    os.makedirs("/run/patchbay/proc")
    _make_etc_files_exist()
    for name, text in ((_NAME_SERVICES, _name_services()), (_HOST_CONF, _ALL_ADDRESSES)):
        with open(f"/run/patchbay/{name}", "w", errors="surrogateescape") as file:
            file.write(text)


def mount_machine(folder: str, private: Iterable[str]) -> None:
    """Mount what a node has of its own beside /proc: /sys, /run, `private` folders, and files in /etc.

    `folder`, below /run/patchbay, holds the node's own copies of the files with names. Files that a mount
    hides are found from the present folder, because another process mounts /proc meanwhile, in which this one
    does not exist. Raises `OSError` where a private folder does not exist.
    """
    _own_sysfs()
    os.chdir("/run/patchbay")
    own = os.path.relpath(folder, "/run/patchbay")
    _own_run()
    _empty(private)
    for name in _SHARED:
        _show(name, name)
    for name in _NAMES:
        _show(f"{own}/{name}", name)


def own_proc() -> None:
    """Mount a /proc that shows the processes of this process's pid namespace."""
    # Refused in a container with parts of /proc masked: the outer /proc works, and shows more processes.
    with contextlib.suppress(PermissionError):
        kernel.mount("proc", "/proc", "proc")


def _own_sysfs() -> None:
    """Let /sys show the network of this process, and control groups as before. Changes the folder."""
    groups = os.path.isdir("/sys/fs/cgroup")
    os.chdir("/sys/fs/cgroup" if groups else "/")
    # Refused in a container with parts of /sys masked: the old /sys stays, and `patchbay doctor` says so.
    with contextlib.suppress(OSError):
        kernel.mount("sysfs", "/sys", "sysfs")
        if groups:
            kernel.bind(".", "/sys/fs/cgroup")


def _own_run() -> None:
    """Mount an own /run: with the same folders, empty, and with the programs that PATH names below /run.

    Nothing else is taken over, so no daemon of the machine can be reached by a socket in /run.
    """
    shapes, folders = _shapes_of_run(), _program_folders()
    programs = [os.open(folder, os.O_PATH) for folder in folders]
    kernel.mount("tmpfs", "/run", "tmpfs", options="mode=755")
    umask = os.umask(0)
    for shape in shapes:
        shape.make()
    os.umask(umask)
    here = os.open(".", os.O_PATH)
    for fd, folder in zip(programs, folders, strict=True):
        os.makedirs(folder, exist_ok=True)
        os.fchdir(fd)
        kernel.bind(".", folder)
        os.close(fd)
    os.fchdir(here)
    os.close(here)
    if (runtime := os.environ.get("XDG_RUNTIME_DIR", "")).startswith("/run/"):
        os.makedirs(runtime, mode=0o700, exist_ok=True)


class _Shape(NamedTuple):
    """An empty folder with its mode and owner, or a symbolic link."""

    path: str
    mode: int
    uid: int = 0
    gid: int = 0
    link: str = ""

    def make(self) -> None:
        if self.link:
            os.symlink(self.link, self.path)
            return
        os.mkdir(self.path, self.mode)
        if self.uid or self.gid:
            with contextlib.suppress(OSError):  # an owner who is not mapped in the lab
                os.chown(self.path, self.uid, self.gid)
                os.chmod(self.path, self.mode)  # a new owner clears set-user-ID and set-group-ID bits


@functools.cache
def _shapes_of_run() -> list[_Shape]:
    """Return what is in each /run of a lab. What the machine removes meanwhile is not there."""
    shapes = {"netns": 0o755, "user": 0o755, "patchbay": 0o755, "lock": 0o1777}
    found = [_Shape(f"/run/{name}", mode) for name, mode in shapes.items()]
    for name in set(os.listdir("/run")) - shapes.keys():
        with contextlib.suppress(FileNotFoundError):
            found += _shape_of(f"/run/{name}")
    return found


def _shape_of(path: str) -> Iterator[_Shape]:
    at = os.lstat(path)
    if stat.S_ISLNK(at.st_mode):
        yield _Shape(path, 0, link=os.readlink(path))
    elif stat.S_ISDIR(at.st_mode):
        yield _Shape(path, stat.S_IMODE(at.st_mode), at.st_uid, at.st_gid)


@functools.cache
def _program_folders() -> list[str]:
    """Return the folders below /run in which programs are found, such as /run/current-system on NixOS."""
    folders = map(os.path.normpath, os.environ.get("PATH", os.defpath).split(os.pathsep))
    return [folder for folder in folders if folder.startswith("/run/") and os.path.isdir(folder)]


def _empty(folders: Iterable[str]) -> None:
    """Mount empty folders with the owners and modes of those that they hide, one in another too."""
    hidden = {folder: _stat_private(folder) for folder in folders}
    for folder, found in hidden.items():
        os.makedirs(folder, exist_ok=True)
        kernel.mount("tmpfs", folder, "tmpfs", options=f"mode={stat.S_IMODE(found.st_mode):o}")
        with contextlib.suppress(OSError):  # an owner who is not mapped in the lab
            os.chown(folder, found.st_uid, found.st_gid)


def _stat_private(folder: str) -> os.stat_result:
    try:
        return os.stat(folder)
    except FileNotFoundError:
        text = "a private folder has to exist on this machine"
        raise FileNotFoundError(errno.ENOENT, text, folder) from None


def _show(source: str, name: str) -> None:
    """Bind a file over the one in /etc, or over the target of a symbolic link into /run, which is made."""
    place = _place_of(name)
    if place.startswith("/run/"):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
    kernel.bind(source, place)


@functools.cache
def _place_of(name: str) -> str:
    return os.path.realpath(f"/etc/{name}")


def _make_etc_files_exist() -> None:
    """Put a layer over /etc with the files that are missing there, unless none is."""
    missing = [name for name in (*_NAMES, *_SHARED) if not _can_be_shown(_place_of(name))]
    if not missing:
        return
    _place_of.cache_clear()
    os.makedirs("/run/patchbay/etc/upper")
    os.makedirs("/run/patchbay/etc/work")
    layers = "lowerdir=/etc,upperdir=/run/patchbay/etc/upper,workdir=/run/patchbay/etc/work"
    kernel.mount("overlay", "/etc", "overlay", options=layers)
    for name in missing:
        if os.path.lexists(f"/etc/{name}"):
            os.unlink(f"/etc/{name}")
        os.close(os.open(f"/etc/{name}", os.O_CREAT | os.O_WRONLY, 0o644))


def _can_be_shown(place: str) -> bool:
    return os.path.isfile(place) or place.startswith("/run/")


def _name_services() -> str:
    """Return the machine's nsswitch.conf(5) with the lab's sources of host names."""
    lines: list[str] = []
    with (
        contextlib.suppress(FileNotFoundError),
        open(f"/etc/{_NAME_SERVICES}", errors="surrogateescape") as file,
    ):
        lines = [line for line in file.read().splitlines() if not line.lstrip().startswith("hosts:")]
    return "\n".join([*lines, _HOSTS_SOURCES, ""])


def fresh_proc() -> int | None:
    """Return a descriptor of another instance of proc; None where the kernel refuses one."""
    try:
        kernel.mount("proc", "/run/patchbay/proc", "proc")
    except OSError:
        return None
    fd = os.open("/run/patchbay/proc", os.O_PATH)
    kernel.unmount("/run/patchbay/proc")
    return fd
