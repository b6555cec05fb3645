"""Run programs as somebody who is not root, also where the tests themselves run as root.

Root plays the account in a mount namespace of its own: there /etc/passwd and its like have a line more, and
this repository and the environment's packages are mounted, read-only, where the user can reach them. A
process holds the namespace. Nothing of it is seen elsewhere, and it ends with pytest, however pytest ends.
"""

import grp
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tests.patience import DEADLINE
from tests.processes import Groups, popen, run

USER = "patchbay-tester"
REPOSITORY = Path(__file__).parents[1]
PACKAGES = Path(trio.__file__).parents[1]
USED = ("patchbay", "cmds", "vm", "sims", "tests", "docs", "README.md", "pyproject.toml")
# Room for `nobody`, which is 65534.
SUBORDINATE_IDS = 65536

Argv = Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class OrdinaryUser:
    name: str
    home: Path
    root: Path
    """The repository, as the user sees it: readable; where root plays the user, not writable."""
    packages: Path
    """The Python packages of the tests, as the user sees them."""
    scratch: Path
    """An empty folder of the user's own, where programs run unless told otherwise; removed at the end."""
    python: str
    """An interpreter that the user may execute, with the tests' version and packages."""
    become: Sequence[str] = field(default=())
    """The words that execute a program as the user; the pid stays."""

    @property
    def patchbay_argv(self) -> list[str]:
        return [self.python, "-m", "patchbay_cli.main"]

    def run(
        self,
        argv: Argv,
        *,
        timeout: float = 2 * DEADLINE,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        cwd: Path | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """To the end, output captured; a failure (`subprocess.CalledProcessError`) shows that output."""
        argv, env = self._as_user(argv, cwd), self._login(env)
        done = run(argv, timeout=timeout, env=env, cwd="/", input=input or "", text=True)
        try:
            if check:
                done.check_returncode()
        except subprocess.CalledProcessError as error:
            error.add_note(f"stdout:\n{done.stdout}\nstderr:\n{done.stderr}")
            raise
        return done

    def popen(
        self,
        argv: Argv,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        **options: Any,
    ) -> subprocess.Popen[Any]:
        """The child is the command itself with no `su` between: its pid, signals and exit status are real."""
        return popen(self._as_user(argv, cwd), env=self._login(env), cwd="/", **options)

    def _as_user(self, argv: Argv, cwd: Path | None) -> Argv:
        # `env` goes to the folder with the user's rights, and in the user's mount namespace.
        return [*self.become, "env", f"--chdir={cwd or self.scratch}", *argv]

    def _login(self, env: Mapping[str, str] | None) -> dict[str, str]:
        """What a login would give; nothing of the session's environment leaks in."""
        imports = [self.root, self.root / "cmds", self.root / "vm", self.packages]
        login = {
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": os.pathsep.join(map(str, imports)),
            "TMPDIR": str(self.scratch),
        }
        return login | dict(env or {})


@contextmanager
def open_ordinary_user() -> Iterator[OrdinaryUser]:
    # Not below the run's own folder for temporary files, which is closed to others.
    top = Path(tempfile.mkdtemp(prefix="patchbay-user-", dir="/var/tmp"))
    groups = Groups()
    try:
        yield _another_user(top, groups) if os.geteuid() == 0 else _this_user(top)
    finally:
        groups.end()
        shutil.rmtree(top)


def _this_user(scratch: Path) -> OrdinaryUser:
    me = pwd.getpwuid(os.geteuid())
    return OrdinaryUser(me.pw_name, Path(me.pw_dir), REPOSITORY, PACKAGES, scratch, sys.executable)


def _another_user(top: Path, groups: Groups) -> OrdinaryUser:
    top.chmod(0o755)
    number = _free_id()
    home, scratch, root, packages = (top / name for name in ("home", "scratch", "patchbay", "packages"))
    for folder in (home, scratch, root, packages):
        folder.mkdir()
    for folder in (home, scratch):
        os.chown(folder, number, number)
    sources = {root: REPOSITORY, packages: PACKAGES}
    if not all(map(_readable_by_all, _what_is_used())):
        _copy_for_all(root, packages)
        sources = {}
    holder = _hold_namespace(_script({**_account_files(top, home, number), **sources}, sources), groups)
    become = [
        *("nsenter", f"--mount=/proc/{holder}/ns/mnt", "--"),
        *("setpriv", f"--reuid={number}", f"--regid={number}", "--init-groups", "--"),
    ]
    # .venv/bin/python leads here by links.
    python = str(Path(sys.executable).resolve())
    user = OrdinaryUser(USER, home, root, packages, scratch, python, become)
    try:
        user.run([python, "-c", "import trio"])
    except subprocess.CalledProcessError as error:
        error.add_note(
            f"user {USER} cannot use {python}: make .venv from /usr/bin/python3 (make clean setup)"
        )
        raise
    return user


# The account


def _free_id() -> int:
    """Return a number that no user and no group has."""
    taken = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    return next(number for number in range(2000, 60000) if number not in taken)


def _account_files(top: Path, home: Path, number: int) -> dict[Path, Path]:
    """Write the files of /etc that know accounts, with the user in them; each with its place."""
    lines = {
        "passwd": f"{USER}:x:{number}:{number}::{home}:/bin/sh",
        "group": f"{USER}:x:{number}:",
        "subuid": f"{USER}:{_free_range()}:{SUBORDINATE_IDS}",
        "subgid": f"{USER}:{_free_range()}:{SUBORDINATE_IDS}",
    }
    files = {}
    for place in (Path("/etc") / name for name in lines):
        # Without /etc/subuid nobody has a range: a lab has one user id then.
        if place.exists():
            mine = files[place] = top / place.name
            mine.write_text(f"{place.read_text().rstrip()}\n{lines[place.name]}\n".lstrip())
            mine.chmod(0o644)
    return files


def _free_range() -> int:
    """Return the first id behind every range that somebody has (subuid(5), subgid(5))."""
    ends = [100_000]
    for place in map(Path, ("/etc/subuid", "/etc/subgid")):
        for line in place.read_text().splitlines() if place.exists() else ():
            _, first, count = line.split(":")
            ends.append(int(first) + int(count))
    return max(ends)


# The mount namespace


def _script(sources: Mapping[Path, Path], read_only: Iterable[Path]) -> str:
    """Return the commands that mount each source at its place."""
    mounts = [["mount", "--bind", str(source), str(place)] for place, source in sources.items()]
    mounts += [["mount", "-o", "remount,bind,ro", str(place)] for place in read_only]
    return "\n".join(["set -e", *map(shlex.join, mounts), "echo mounted", "exec sleep infinity"])


def _hold_namespace(script: str, groups: Groups) -> int:
    """Start a process in a mount namespace of its own, run the script there; return the process's id."""
    argv = ["unshare", "--mount", "--propagation=private", "sh", "-c", script]
    process = popen(argv, until_end_of=groups, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    if process.stdout.readline() != "mounted\n":
        raise OSError(f"cannot play an ordinary user on this machine: {process.communicate()[1]}")
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    process.stderr.close()
    return process.pid


# What the user reads


def _what_is_used() -> Iterator[Path]:
    yield from (REPOSITORY / name for name in USED)
    yield PACKAGES


def _readable_by_all(tree: Path) -> bool:
    """Return False where the files were made under a umask such as 077."""
    closed = ("(", "!", "-perm", "-o+r", "-o", "-type", "d", "!", "-perm", "-o+x", ")")
    counts = ("!", "-type", "l", "!", "-path", "*/__pycache__/*")
    found = run(["find", tree, *closed, *counts, "-print", "-quit"], check=True)
    return not found.stdout


def _copy_for_all(root: Path, packages: Path) -> None:
    *files, purelib = _what_is_used()
    shutil.copytree(purelib, packages, dirs_exist_ok=True)
    for source in files:
        if source.is_dir():
            shutil.copytree(source, root / source.name)
        else:
            shutil.copy(source, root)
    run(["chmod", "-R", "a+rX", root, packages], check=True)
