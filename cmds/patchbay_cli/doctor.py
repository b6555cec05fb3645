"""`patchbay doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from patchbay.sandbox.doctor import CheckResult

__all__ = ["doctor"]


def doctor() -> None:
    """Check what this machine can do.

    For each thing that is missing, print the command that repairs it. Exit status 0 if labs can be opened, 2
    if not.
    """
    import trio

    from patchbay.sandbox.doctor import examine

    findings = trio.run(examine)
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        typer.echo(_line(finding, width))
    broken = [finding for finding in findings if finding.fatal]
    if broken:
        typer.echo(f"\nlabs cannot be opened here: {len(broken)} thing(s) to repair", err=True)
        raise typer.Exit(2)
    typer.echo("\nlabs can be opened here")


def _line(finding: CheckResult, width: int) -> str:
    mark = "ok  " if finding.good else "FAIL" if finding.fatal else "note"
    repair = f"\n      repair: {finding.repair}" if finding.repair and not finding.good else ""
    return f"{mark}  {finding.what:{width}}  {finding.found}{repair}"
