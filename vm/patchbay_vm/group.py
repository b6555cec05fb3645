"""A process, its children and a folder, none of which outlive this program, however it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import define

__all__ = ["Group", "open_group"]

# Its input ends when this program does, also by SIGKILL; then it kills the last process group that it was
# given, and removes the folder.
_WATCH = """
while read -r line; do last=$line; done
[ -z "$last" ] || kill -s KILL -- "-$last"
rm -rf -- "$1"
"""


@define
class Group:
    """One process after the other, each with all its children in a process group; and a folder to work in."""

    scratch: Path
    watch: subprocess.Popen[bytes]
    process: subprocess.Popen[bytes] | None = None

    def popen(self, argv: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.Popen[bytes]:
        """Start the next process; the one before it has ended."""
        # A session, because a user-mode kernel would make itself one, and leave the group that way.
        self.process = process = subprocess.Popen[bytes](argv, start_new_session=True, **options)
        assert self.watch.stdin
        self.watch.stdin.write(f"{process.pid}\n".encode())
        self.watch.stdin.flush()
        return process

    def kill(self) -> None:
        """End all of the group, also children that outlived the process; returns when they are gone."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        while _alive(self.process.pid):
            time.sleep(0.002)


def _alive(group: int) -> bool:
    """Return whether any process of the group runs; others may have to reap those that ended."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # After the name, which may hold anything: state, parent, group.
            state, _, its_group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


@contextlib.contextmanager
def open_group(folder: str | os.PathLike[str]) -> Iterator[Group]:
    """Open a group with a scratch folder in `folder`; both are gone after the block."""
    scratch = Path(tempfile.mkdtemp(prefix="patchbay-vm-", dir=folder))
    argv = ["sh", "-c", _WATCH, "sh", str(scratch)]
    null = subprocess.DEVNULL
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=null, stderr=null, cwd="/", start_new_session=True
    ) as watch:
        group = Group(scratch, watch)
        try:
            yield group
        finally:
            group.kill()
            watch.kill()
            shutil.rmtree(scratch, ignore_errors=True)
