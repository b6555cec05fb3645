"""Run programs as somebody who is not root, also where the tests themselves run as root.

The user can read neither root's home nor, perhaps, this repository. So they get a copy of both it and the
environment's packages, and the system's interpreter to run them.
"""

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

USER = "patchbay-test"
REPOSITORY = Path(__file__).parents[1]
COPIED = ("patchbay", "cmds", "vm", "sims", "tests", "docs", "ui_static", "README.md", "pyproject.toml")
# Tools for the programmer, two thirds of the environment; and .pth files, which lead back to the repository.
NOT_COPIED = ("__pycache__", "*.pth", "mypy", "mypy-*", "mypyc", "pip", "setuptools", "pkg_resources")

Argv = Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class OrdinaryUser:
    name: str
    home: Path
    root: Path
    """The repository, or a copy of it that the user can read but not write."""
    scratch: Path
    """An empty folder of the user's own, where programs run unless told otherwise; removed at the end."""
    python: str
    """An interpreter that the user may execute, with the tests' version and packages."""
    switches: Mapping[str, Any]
    """What subprocess needs in order to become the user."""

    @property
    def patchbay_argv(self) -> list[str]:
        return [self.python, "-m", "patchbay_cli.main"]

    def run(
        self,
        argv: Argv,
        *,
        timeout: float | None = 120,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        cwd: Path | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """To the end, output captured; a failure (`subprocess.CalledProcessError`) shows that output."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            argv,
            timeout=timeout,
            input=input or "",
            capture_output=True,
            text=True,
            check=False,
            **self._surroundings(env, cwd),
        )
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
        return subprocess.Popen(argv, **options, **self._surroundings(env, cwd))

    def _surroundings(self, env: Mapping[str, str] | None, cwd: Path | None) -> dict[str, Any]:
        """What a login would give; nothing of the session's environment leaks in."""
        imports = [self.root, self.root / "cmds", self.root / "vm", self.root / "site-packages"]
        login = {
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": os.pathsep.join(map(str, imports)),
        }
        return {"env": login | dict(env or {}), "cwd": cwd or self.scratch, **self.switches}


@contextmanager
def open_ordinary_user() -> Iterator[OrdinaryUser]:
    # Not below /tmp/pytest-of-root or /root, which are closed to others.
    top = Path(tempfile.mkdtemp(prefix="patchbay-user-", dir="/var/tmp"))
    scratch = top / "scratch"
    scratch.mkdir()
    try:
        yield _another_user(top, scratch) if os.geteuid() == 0 else _this_user(scratch)
    finally:
        shutil.rmtree(top)


def _this_user(scratch: Path) -> OrdinaryUser:
    me = pwd.getpwuid(os.geteuid())
    return OrdinaryUser(me.pw_name, Path(me.pw_dir), REPOSITORY, scratch, sys.executable, switches={})


def _another_user(top: Path, scratch: Path) -> OrdinaryUser:
    them = _account()
    copy = top / "patchbay"
    _copy_for_all(copy)
    top.chmod(0o755)
    os.chown(scratch, them.pw_uid, them.pw_gid)
    groups = os.getgrouplist(USER, them.pw_gid)
    switches = {"user": them.pw_uid, "group": them.pw_gid, "extra_groups": groups}
    # .venv/bin/python leads here by links.
    python = str(Path(sys.executable).resolve())
    user = OrdinaryUser(USER, Path(them.pw_dir), copy, scratch, python, switches)
    try:
        user.run([python, "-c", "import trio"])
    except (OSError, subprocess.CalledProcessError) as error:
        error.add_note(
            f"user {USER} cannot use {python}: make .venv from /usr/bin/python3 (make clean setup)"
        )
        raise
    return user


def _account() -> pwd.struct_passwd:
    """Made if need be, and left there: taking accounts away is nothing a test should do."""
    if USER not in {entry.pw_name for entry in pwd.getpwall()}:
        subprocess.run(["/usr/sbin/useradd", "--create-home", "--shell", "/bin/bash", USER], check=True)
    return pwd.getpwnam(USER)


def _copy_for_all(target: Path) -> None:
    target.mkdir()
    ignore = shutil.ignore_patterns(*NOT_COPIED)
    shutil.copytree(sysconfig.get_path("purelib"), target / "site-packages", ignore=ignore)
    for source in (REPOSITORY / name for name in COPIED):
        if source.is_dir():
            shutil.copytree(source, target / source.name, ignore=ignore)
        elif source.exists():
            shutil.copy(source, target)
    # Whatever umask the originals were made under.
    subprocess.run(["chmod", "-R", "a+rX", target], check=True)
