"""The kernel: built from Debian's source, once, and kept in a cache.

python -m patchbay_vm.kernel build      print the kernel's path; build it first if it is not there yet
python -m patchbay_vm.kernel path       print where it is, or would be
python -m patchbay_vm.kernel needed     succeed if the host's own kernel has no netem
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen
from plumbum import ProcessExecutionError, local
from plumbum.commands import BaseCommand

from patchbay_vm.errors import KernelError, VmError, tail
from patchbay_vm.group import Group, open_group

__all__ = ["Edit", "Ingredients", "build", "host_has_netem", "ingredients", "kernel_path", "main"]

# Debian 12 has 6.12 from its security archive besides 6.1, in which a command takes twice the time; Debian 13
# has 6.12 alone.
SOURCE = "linux-source-6.12"
ARCHIVE = f"/usr/src/{SOURCE}.tar.xz"
CONFIG = Path(__file__).with_name("uml.config")

# Packages, the [kernel] group of packages.txt, each with a program or file that tells whether it is there.
NEEDS = {
    "bc": "bc",
    "bison": "bison",
    "flex": "flex",
    "gcc": "gcc",
    "libc6-dev": "/usr/include/stdio.h",
    SOURCE: ARCHIVE,
    "make": "make",
    "xz-utils": "xz",
}

Say = Callable[[str], None]


@frozen
class Edit:
    """A change to the source, refused where the source does not have exactly `old`."""

    file: str
    old: str
    new: str


EDITS = (
    # Bytes kept of a process's floating-point state. With AMX the processor has 11 kB of it, and the kernel
    # panics where that is more than expected.
    Edit("arch/x86/um/user-offsets.c", "(HOST_FP_SIZE, 2696)", "(HOST_FP_SIZE, 12288)"),
)


@frozen
class Ingredients:
    """Everything that a kernel is made from; its name in the cache changes with any of it."""

    source: str
    compiler: str
    machine: str
    config: str
    edits: tuple[Edit, ...] = EDITS

    @property
    def name(self) -> str:
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:12]
        return f"{self.source}-{self.machine}-{digest}"


def ingredients() -> Ingredients:
    """Return what a kernel would be made from on this machine today."""
    _check_machine()
    return Ingredients(
        source=_output_of(["dpkg-query", "-W", "-f", "${Version}", SOURCE]),
        compiler=_output_of(["gcc", "--version"]).partition("\n")[0],
        machine=platform.machine(),
        config=CONFIG.read_text(encoding="utf-8"),
    )


def kernel_path(made_from: Ingredients | None = None) -> Path:
    """Return the path that a built kernel has."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "patchbay" / "kernels" / (made_from or ingredients()).name / "linux"


def build(say: Say = lambda _: None) -> Path:
    """Return the kernel's path: at once if it is in the cache, else after a build of some minutes."""
    made_from = ingredients()
    target = kernel_path(made_from)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / "lock", say):
        if not target.exists():  # else another build, for which we waited, has made it
            _build(made_from, target, say)
    return target


def host_has_netem() -> bool:
    """Tried in a network namespace of its own; also False where `tc` or the namespace cannot be had."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    trial = ["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    unshare = _program("unshare", path)
    if unshare is None:
        return False
    status, _, _ = unshare[[*user, "--net", *trial]].run(retcode=None)
    return bool(status == 0)


# What is there


def _check_machine() -> None:
    if platform.machine() != "x86_64":
        raise KernelError(f"user-mode Linux runs on x86_64 only, this machine is {platform.machine()}")
    missing = [package for package, sign in NEEDS.items() if not _present(sign)]
    if missing:
        raise KernelError(
            f"building a kernel needs {', '.join(missing)}. As root:\n"
            f"  apt-get install --no-install-recommends {' '.join(missing)}"
        )


def _present(sign: str) -> bool:
    return Path(sign).exists() if sign.startswith("/") else shutil.which(sign) is not None


def _output_of(argv: Sequence[str]) -> str:
    name, *arguments = argv
    program = _program(name, os.environ.get("PATH", os.defpath))
    if program is None:
        raise KernelError(f"{' '.join(argv)}: there is no program {name} in PATH")
    try:
        _, output, _ = program[arguments].run()
    except ProcessExecutionError as error:  # an OSError too
        why = tail(error.stderr).strip() or f"exit status {error.retcode}"
        raise KernelError(f"{' '.join(argv)}: {why}") from error
    except OSError as error:
        raise KernelError(f"{' '.join(argv)}: {error}") from error
    return str(output).strip()


def _program(name: str, path: str) -> BaseCommand | None:
    """Return the program `name` of `path`, to be run with the environment of now; None if there is none."""
    # plumbum reads PATH and the other variables once, when it is imported, and would look there.
    found = shutil.which(name, path=path)
    return local[found].with_env(**os.environ | {"PATH": path}) if found else None


# Building


@contextmanager
def _locked(file: Path, say: Say) -> Iterator[None]:
    """Let one build run at a time. The lock ends with the process that holds it."""
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build of the same kernel")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(made_from: Ingredients, target: Path, say: Say) -> None:
    began = time.monotonic()
    # /tmp may be in memory; source and objects are 2 GB.
    with open_group(os.environ.get("TMPDIR") or "/var/tmp") as group:
        say(f"kernel {made_from.name}: unpacking {ARCHIVE}")
        _do(group, ["tar", "-xJf", ARCHIVE, "--strip-components=1"])
        _edit(group.scratch, made_from.edits)
        say("configuring")
        _configure(group, made_from.config)
        jobs = len(os.sched_getaffinity(0))
        say(f"compiling with {jobs} jobs: a few minutes")
        _do(group, ["make", "ARCH=um", f"-j{jobs}", "linux"])
        _put(group.scratch / "linux", target)
    say(f"built in {time.monotonic() - began:.0f} s: {target}")


def _do(group: Group, argv: Sequence[str]) -> None:
    """Run a step to its end. An error shows the end of its output."""
    log = group.scratch / "build.log"
    with log.open("wb") as output:
        # Without the session's variables: MAKEFLAGS of a `make` above us would change ours. Not by plumbum,
        # because it adds `env` to its own environment instead of replacing it.
        env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        process = group.popen(
            argv, cwd=group.scratch, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        status = process.wait()
    if status:
        text = tail(log.read_text(errors="replace"))
        raise KernelError(f"{' '.join(argv)} failed with {status}; the end of its output:\n{text}")


def _edit(source: Path, edits: Sequence[Edit]) -> None:
    for edit in edits:
        file = source / edit.file
        text = file.read_text(encoding="utf-8")
        if (times := text.count(edit.old)) != 1:
            raise KernelError(f"{edit.file} of {SOURCE} has {edit.old!r} {times} times, not once")
        file.write_text(text.replace(edit.old, edit.new), encoding="utf-8")


def _configure(group: Group, config: str) -> None:
    """Kconfig drops what it does not know or cannot fulfil without a word: compare."""
    wanted = group.scratch / "wanted.config"
    wanted.write_text(config, encoding="utf-8")
    _do(group, ["make", "ARCH=um", f"KCONFIG_ALLCONFIG={wanted}", "allnoconfig"])
    made = set((group.scratch / ".config").read_text(encoding="utf-8").splitlines())
    lines = [line for line in config.splitlines() if line.startswith(("CONFIG_", "# CONFIG_"))]
    if refused := [line for line in lines if line not in made]:
        raise KernelError(f"{SOURCE} refuses these lines of {CONFIG.name}: {'; '.join(refused)}")


def _put(made: Path, target: Path) -> None:
    """Put a file in place in one step, so that a kernel which is seen is complete."""
    beside = target.with_name("linux.new")
    shutil.copy(made, beside)
    beside.rename(target)


# The command line


def main(argv: Sequence[str] | None = None) -> int:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m patchbay_vm.kernel", description=summary)
    parser.add_argument("what", choices=["build", "path", "needed"])
    what = parser.parse_args(argv).what
    if what == "needed":
        return int(host_has_netem())
    try:
        print(build(_tell) if what == "build" else kernel_path())
    except VmError as error:
        _tell(f"patchbay_vm.kernel: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
