"""`patchbay run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchbay_cli.common import errors_end_plainly, fail

if TYPE_CHECKING:
    from patchbay.report.run_folder import RunFolder
    from patchbay.sim.spec.outcome import RunEvent

__all__ = ["run"]

_SIGNALLED = 128


def run(
    sims: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SIM...",
            help="Sim files, or folders with sim files in them or below. "
            "Without any: what the nearest patchbay.toml names.",
        ),
    ] = None,
    work_dir: Annotated[
        Path,
        typer.Option(help="Where the run's folder goes; DIR/latest points to the newest.", metavar="DIR"),
    ] = Path(".patchbay-work"),
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="How many sims run at once.", metavar="N")
    ] = 1,
    timeout: Annotated[
        str | None,
        typer.Option(
            help='How long each sim may take, such as "90s" or "2m", instead of what its file says.',
            metavar="TIME",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what the commands print, and what was captured.")
    ] = False,
    junit: Annotated[
        Path | None, typer.Option(help="Write the results as JUnit XML, too.", metavar="FILE")
    ] = None,
) -> None:
    """Run sims, and print what they measured.

    Each sim has a lab of its own, in which its steps are done. Needs no root. The exit status is 0 if all
    sims passed, 1 if one failed, 2 if a file or this machine is not as it must be (then nothing was run), 130
    after Ctrl-C, 143 after SIGTERM.
    """
    from patchbay.errors import HostError
    from patchbay.report.run_folder import RunFolder
    from patchbay.sandbox.host import lacks
    from patchbay.sim.spec.find import load_sims

    with errors_end_plainly():
        limit = _seconds(timeout)
        found = load_sims(sims or [], Path.cwd())
        if missing := lacks():
            raise HostError(missing)
        try:
            folder = RunFolder.create(work_dir, found, sys.argv[1:])
            if junit is not None:
                junit.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise fail(f"cannot write to {error.filename}: {error.strerror}") from None
        status = _run(folder, jobs=jobs, limit=limit, verbose=verbose, junit=junit)
    raise typer.Exit(status)


def _seconds(text: str | None) -> float | None:
    from patchbay.config.converter import Unacceptable
    from patchbay.errors import Problem, SpecError
    from patchbay.sim.spec.durations import parse_duration

    try:
        return parse_duration(text) if text is not None else None
    except Unacceptable as error:
        raise SpecError([Problem("--timeout", str(error))]) from None


def _run(folder: RunFolder, *, jobs: int, limit: float | None, verbose: bool, junit: Path | None) -> int:
    """Run all; the exit status."""
    import trio
    from rich.console import Console

    from patchbay.record.folder import write_whole
    from patchbay.report.combined import as_junit, status_of
    from patchbay.sim.live.runner import run_sims
    from patchbay.sim.spec.outcome import Status
    from patchbay_cli.progress import print_results, watcher

    console = Console(highlight=False)

    async def main() -> int | None:
        return await run_sims(folder.outcomes, watch, jobs=jobs, timeout=limit)

    try:
        with watcher(console, folder.outcomes, verbose=verbose) as show:

            def watch(happening: RunEvent) -> None:
                folder(happening)
                show(happening)

            signalled = trio.run(main)
    finally:
        folder.close()
        if junit is not None:
            write_whole(junit, as_junit(folder.path.name, folder.outcomes))
    print_results(console, folder.outcomes, folder.path)
    if signalled is not None:
        return _SIGNALLED + signalled
    return 0 if status_of(folder.outcomes) is Status.PASSED else 1
