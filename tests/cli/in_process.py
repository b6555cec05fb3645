"""The command line without a process of its own, for what ends before a lab is opened."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from attrs import frozen

from patchbay_cli.main import app

__all__ = ["Ended", "call"]


@frozen
class Ended:
    returncode: int
    stdout: str
    stderr: str


def call(*words: str | Path, cwd: Path) -> Ended:
    """Do what `patchbay WORDS` does in that folder."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app([*map(str, words)], prog_name="patchbay")
        except SystemExit as ended:
            status = int(ended.code or 0)
    return Ended(status, out.getvalue(), err.getvalue())
