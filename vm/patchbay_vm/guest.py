"""Process 1 of the guest: puts a root file system together, runs the command, tells how it ended.

Started by the kernel as a script, with the host's interpreter and nothing but the standard library:
    python -ISB guest.py CONTROL
CONTROL is a folder of the host with `job`, what is to be done; `guest.py` itself; and `stage`, empty.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import tty
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__: list[str] = []

MS_MOVE = 0x2000
POWER_OFF = 0x4321FEDC

# What the root gets besides the host's files: type, place, options.
MOUNTS = (
    ("proc", "proc", ""),
    ("sysfs", "sys", ""),
    ("devtmpfs", "dev", ""),
    ("devpts", "dev/pts", "ptmxmode=666"),
    ("tmpfs", "dev/shm", "mode=1777"),
    ("tmpfs", "run", "mode=755"),
)
LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}
# Serial lines, which the runner reads: for standard output and standard error.
LINES = ("/dev/ttyS0", "/dev/ttyS1")

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    control = Path(sys.argv[1])
    job = json.loads((control / "job").read_text())
    make_root(control / "stage", [str(control), *job["shares"]])
    settle()
    status = run(job)
    (control / "status").write_text(str(status))
    os.sync()  # the host's files, of which the kernel may hold newer pages
    _libc.reboot(ctypes.c_uint(POWER_OFF))


def make_root(stage: Path, shares: Sequence[str]) -> None:
    """Mount the host's root below an overlay in memory, and in it what is shared, written through."""
    mount("tmpfs", stage, "tmpfs")
    os.chdir(stage)
    for name in ("up", "work", "root"):
        Path(name).mkdir()
    mount("overlay", "root", "overlay", "lowerdir=/,upperdir=up,workdir=work")
    os.chdir("root")
    for kind, place, options in MOUNTS:
        Path(place).mkdir(exist_ok=True)
        mount(kind, place, kind, options)
    for share in shares:
        Path(f".{share}").mkdir(parents=True, exist_ok=True)
        mount("none", f".{share}", "hostfs", share)
    # Not chroot alone: user namespaces are refused to processes whose root is not their namespace's.
    mount(".", "/", "", flags=MS_MOVE)
    os.chroot(".")
    os.chdir("/")


def mount(source: str, place: str | Path, kind: str, options: str = "", flags: int = 0) -> None:
    arguments = (source.encode(), os.fsencode(place), kind.encode(), ctypes.c_ulong(flags), options.encode())
    if _libc.mount(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"{kind} on {place}")


def settle() -> None:
    """Set up what a booted system has besides files."""
    for link, target in LINKS.items():
        Path(link).symlink_to(target)
    for device in ("fuse", "net/tun"):
        Path("/dev", device).chmod(0o666)  # as udev does
    socket.sethostname("uml")
    with socket.socket() as any_socket:  # ip link set lo up
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1))


def run(job: Mapping[str, Any]) -> int:
    """Run the command to its end, and end all that it left behind."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            job["argv"],
            cwd=job["cwd"],
            env=job["env"],
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
    except OSError as error:
        return refuse(error)
    assert process.stdout and process.stderr
    ends = zip((process.stdout.fileno(), process.stderr.fileno()), LINES, strict=True)
    pumps = [threading.Thread(target=pump, args=pair) for pair in ends]
    for thread in pumps:
        thread.start()
    status = process.returncode = reap_until(process.pid)
    os.kill(-1, signal.SIGKILL)
    for thread in pumps:
        thread.join()
    return status


def refuse(error: OSError) -> int:
    """As a shell tells it."""
    read_end, write_end = os.pipe()
    os.write(write_end, f"{error}\n".encode())
    os.close(write_end)
    pump(read_end, LINES[1])
    return 127 if isinstance(error, FileNotFoundError) else 126


def reap_until(wanted: int) -> int:
    """Process 1 inherits all orphans."""
    while True:
        pid, status = os.wait()
        if pid == wanted:
            return os.waitstatus_to_exitcode(status)


def pump(source: int, line: str) -> None:
    """Copy from a pipe to the line, because programs write differently to a terminal."""
    with Path(line).open("wb", buffering=0) as terminal:
        tty.setraw(terminal.fileno())
        while data := os.read(source, 65536):
            while data:
                data = data[terminal.write(data) :]
        termios.tcdrain(terminal)


if __name__ == "__main__":
    main()
