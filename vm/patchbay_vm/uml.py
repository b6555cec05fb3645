"""A command in a guest: a user-mode kernel whose files are the host's.

    python -m patchbay_vm.uml [--timeout SECONDS] [--mem MIB] [--share DIR] [--env NAME=VALUE] -- CMD ARGS...

CMD runs as root in the caller's current folder. What it writes is in the guest's memory and gone with it,
but in shared folders, which are the host's. It has no network besides what it makes itself, and no input.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from patchbay_vm.errors import GuestDiedError, GuestTimeoutError, KernelError, VmError, tail
from patchbay_vm.group import Group, open_group
from patchbay_vm.kernel import kernel_path

__all__ = ["main", "run"]

GUEST = Path(__file__).with_name("guest.py")
# Short and without spaces: its name goes onto a kernel's command line.
SCRATCH = "/tmp"
ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "LOGNAME": "root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "USER": "root",
}


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout: float | None = None,
    cwd: str | os.PathLike[str] = ".",
    env: Mapping[str, str] | None = None,
    shares: Sequence[str | os.PathLike[str]] = (),
    mem: int = 2048,
    kernel: Path | None = None,
    stdout: BinaryIO | None = None,
    stderr: BinaryIO | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a guest of its own to its end. As in `subprocess`, a status of -N means signal N.

    Output is captured, or written to `stdout` and `stderr` while it comes. `timeout` is in seconds and
    counts the guest's start too; `mem` is in MiB. The guest does not outlive the caller.
    """
    words = [os.fspath(word) for word in argv]
    job = {
        "argv": words,
        "cwd": str(Path(cwd).resolve(strict=True)),
        "env": ENVIRONMENT | dict(env or {}),
        "shares": [str(Path(folder).resolve(strict=True)) for folder in shares],
    }
    kernel = kernel or _built()
    with _listening(stdout, stderr, None) as (out, err, console), open_group(SCRATCH) as group:
        (group.scratch / "job").write_text(json.dumps(job), encoding="utf-8")
        process = _boot(group, kernel, mem, [out, err, console])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
        in_time = process.returncode is not None
        status = _status(group.scratch)
    if status is not None:
        return subprocess.CompletedProcess(words, status, out.text, err.text)
    what = f"in the guest, `{' '.join(words)}`"
    if not in_time:
        output = tail(f"{out.text or ''}{err.text or ''}{console.text}")
        raise GuestTimeoutError(f"{what} did not end within {timeout:g} s. The end of its output:\n{output}")
    raise GuestDiedError(f"{what} died with it. The end of its console:\n{tail(console.text or '')}")


def _built() -> Path:
    kernel = kernel_path()
    if not kernel.exists():
        raise KernelError(f"no kernel in {kernel.parent} yet. Build it: python -m patchbay_vm.kernel build")
    return kernel


def _status(scratch: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int((scratch / "status").read_text())
    return None


# What comes out of the guest


class _Listener(threading.Thread):
    """Reads one of the guest's outputs to its end."""

    def __init__(self, sink: BinaryIO | None) -> None:
        super().__init__(daemon=True)
        self.sink = sink
        self.heard = bytearray()
        self.read_end, self.write_end = os.pipe()

    @property
    def text(self) -> str | None:
        return None if self.sink else self.heard.decode(errors="replace")

    def run(self) -> None:
        broken = False
        while data := os.read(self.read_end, 65536):
            if not self.sink:
                self.heard += data
            elif not broken:
                try:
                    self.sink.write(data)
                    self.sink.flush()
                except OSError:  # nobody reads any more; the guest need not hear of it
                    broken = True

    def release(self) -> None:
        """Leave the guest's end to the guest alone, so that its end is the output's."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1


@contextmanager
def _listening(*sinks: BinaryIO | None) -> Iterator[list[_Listener]]:
    listeners = [_Listener(sink) for sink in sinks]
    for listener in listeners:
        listener.start()
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.release()
            listener.join()
            os.close(listener.read_end)


# Starting it


def _boot(group: Group, kernel: Path, mem: int, listeners: Sequence[_Listener]) -> subprocess.Popen[bytes]:
    scratch = group.scratch
    (scratch / "stage").mkdir()
    guest = shutil.copy(GUEST, scratch)
    out, err, console = (listener.write_end for listener in listeners)
    process = group.popen(
        [
            kernel,
            f"mem={mem}M",
            *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
            *("quiet", "console=tty0", f"con0=null,fd:{console}", "con=null"),
            *(f"ssl0=null,fd:{out}", f"ssl1=null,fd:{err}", "ssl=null"),
            f"uml_dir={scratch}/",  # else a folder in the home is made
            f"init={Path(sys.executable).resolve()}",
            *("--", "-ISB", guest, str(scratch)),
        ],
        cwd="/",
        env={"HOME": str(scratch), "PATH": os.defpath, "TMPDIR": _memory_folder(mem)},
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
        pass_fds=[out, err],
    )
    for listener in listeners:
        listener.release()
    return process


def _memory_folder(mem: int) -> str:
    """Return the folder for the guest's memory, a file without a name. Containers may lack /dev/shm."""
    shm = os.statvfs("/dev/shm")
    fits = shm.f_bavail * shm.f_frsize >= mem << 20 and not shm.f_flag & os.ST_NOEXEC
    return "/dev/shm" if fits else "/var/tmp"


# The command line


def main(argv: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(argv)
    try:
        done = run(
            asked.command,
            timeout=asked.timeout,
            env=dict(asked.env),
            shares=asked.share,
            mem=asked.mem,
            kernel=asked.kernel,
            stdout=sys.stdout.buffer,
            stderr=sys.stderr.buffer,
        )
    except (VmError, OSError) as error:
        print(f"patchbay_vm.uml: {error}", file=sys.stderr)
        return 124 if isinstance(error, GuestTimeoutError) else 125
    except KeyboardInterrupt:
        return 130
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m patchbay_vm.uml",
        description=(__doc__ or "").partition("\n")[0],
        epilog="Exit status: the command's; 124 if it did not end in time, 125 if the guest failed.",
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="end the guest after this time")
    parser.add_argument("--mem", type=int, default=2048, metavar="MIB", help="the guest's memory (2048)")
    parser.add_argument("--share", action="append", default=[], metavar="DIR", help="folder to write through")
    parser.add_argument("--env", action="append", default=[], type=_variable, metavar="NAME=VALUE")
    parser.add_argument("--kernel", type=Path, metavar="FILE", help="instead of the one in the cache")
    parser.add_argument("command", nargs="+", metavar="CMD")
    return parser


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
