"""`patchbay trace`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchbay.model.link import Emulator
from patchbay_cli.common import EmulatorOption, errors_end_plainly, fail, read_spec

if TYPE_CHECKING:
    from patchbay.record.journal import Record

__all__ = ["trace"]

COMMANDS = "commands.jsonl"


class Format(StrEnum):
    """How the commands are printed."""

    SH = "sh"
    JSON = "json"
    TABLE = "table"


def trace(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_FILE",
            help="The folder of a run, or of one sim in it; or a lab or sim file, whose lab is opened once.",
        ),
    ],
    format: Annotated[
        Format, typer.Option("--format", help="sh is a script that rebuilds the lab by hand.")
    ] = Format.SH,
    node: Annotated[
        str | None, typer.Option("--node", help="Only what was done for this node, or in it.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every command in order, also those undone or replaced later.")
    ] = False,
    emulator: EmulatorOption = Emulator.AUTO,
) -> None:
    """Print the exact commands that were applied to build a lab.

    `patchbay trace lab.toml > lab.sh; sh lab.sh` gives a shell in the same lab without patchbay.
    """
    from patchbay.record.trace import as_json, as_script, select

    with errors_end_plainly():
        records, title = _records(source, emulator)
    ns = _namespace(records, node)
    chosen = select(records, everything=everything, node_ns=ns)
    if format is Format.SH:
        typer.echo(as_script(chosen, title), nl=False)
    elif format is Format.JSON:
        typer.echo(as_json(chosen))
    else:
        _print_table(chosen)


def _records(source: Path, emulator: Emulator) -> tuple[Sequence[Record], str]:
    from patchbay.record.journal import read_records

    if source.is_dir():
        with _journal_of(source).open(encoding="utf-8", errors="surrogateescape") as file:
            return read_records(file), f"the lab of the run in {source}"
    if source.name == COMMANDS:
        with source.open(encoding="utf-8", errors="surrogateescape") as file:
            return read_records(file), f"the lab of the run in {source.parent}"
    return _open_once(source, emulator), f"the lab of {source}"


def _journal_of(run: Path) -> Path:
    found = sorted(run.glob(COMMANDS)) or sorted(run.glob(f"*/{COMMANDS}"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise fail(f"{run}: has no {COMMANDS}; accepted: the folder of a run, or of one sim in it")
    listed = "\n".join(f"  patchbay trace {path.parent}" for path in found)
    raise fail(f"{run}: holds several labs; name one:\n{listed}")


def _open_once(file: Path, emulator: Emulator) -> Sequence[Record]:
    import trio

    from patchbay.lab.open import open_lab

    spec = read_spec(file)

    async def records() -> Sequence[Record]:
        async with open_lab(spec, label=file.stem, emulator=emulator) as lab:
            return lab.commands

    return trio.run(records)


def _namespace(records: Sequence[Record], node: str | None) -> str | None:
    """A node's namespace, by the name that the user gave it or by its own."""
    from patchbay.errors import did_you_mean

    if node is None:
        return None
    made = {r.argv[3]: r.why for r in records if r.argv[:3] == ("ip", "netns", "add")}
    for ns, why in made.items():
        if node == ns or f"'{node}'" in why:
            return ns
    raise fail(f"unknown node '{node}'; known: {', '.join(made)}{did_you_mean(node, made)}")


def _print_table(records: Sequence[Record]) -> None:
    from rich.console import Console
    from rich.table import Table

    from patchbay.tools.commands import in_namespace

    table = Table("seq", "ms", "status", "command", "why", box=None, pad_edge=False)
    for r in records:
        status = "not run" if r.status is None else f"{r.status}{' undone' if r.undone else ''}"
        table.add_row(str(r.seq), f"{r.elapsed * 1000:.1f}", status, in_namespace(r.ns, r.argv), r.why)
    Console().print(table, markup=False)
