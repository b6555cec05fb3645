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
    from patchbay.record.trace import Item

__all__ = ["trace"]

COMMANDS, CHANGES = "commands.jsonl", "changes.jsonl"


class Format(StrEnum):
    """The form in which commands are printed."""

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
        Format, typer.Option("--format", help="sh is a script that rebuilds the lab without patchbay.")
    ] = Format.SH,
    node: Annotated[
        str | None, typer.Option("--node", help="Only what was done for this node, or in it.")
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Every command that was run, in order, also those undone or replaced later."
        ),
    ] = False,
    emulator: EmulatorOption = Emulator.AUTO,
) -> None:
    """Print the exact commands that make a lab.

    In a lab that was changed, these are the commands that make it what it is now.

    `patchbay trace lab.toml > lab.sh; sh lab.sh` gives a shell in the same lab without patchbay.
    """
    from patchbay.record.trace import as_json, as_part, as_script, of_node

    with errors_end_plainly():
        items, title = _items(source, emulator, everything=everything)
    if node is not None:
        items = of_node(items, _namespace(items, node))
    if format is Format.SH:
        script = as_script(items, title) if node is None else as_part(items, f"'{node}' in {title}")
        typer.echo(script, nl=False)
    elif format is Format.JSON:
        typer.echo(as_json(items))
    else:
        _print_table(items)


def _items(source: Path, emulator: Emulator, *, everything: bool) -> tuple[Sequence[Item], str]:
    if not source.is_dir() and source.name not in (COMMANDS, CHANGES):
        return _open_once(source, emulator, everything=everything), f"the lab of {source}"
    name = COMMANDS if everything else CHANGES
    file = _file_of(source, name) if source.is_dir() else source.with_name(name)
    return _read(file), f"the lab of the run in {file.parent}"


def _read(file: Path) -> Sequence[Item]:
    from patchbay.record.history import layout_after
    from patchbay.record.journal import read_records
    from patchbay.record.trace import commands_of

    with file.open(encoding="utf-8", errors="surrogateescape") as lines:
        return read_records(lines) if file.name == COMMANDS else commands_of(layout_after(lines))


def _file_of(run: Path, name: str) -> Path:
    found = sorted(run.glob(name)) or sorted(run.glob(f"*/{name}"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise fail(f"{run}: has no {name}; accepted: the folder of a run, or of one sim in it")
    listed = "\n".join(f"  patchbay trace {path.parent}" for path in found)
    raise fail(f"{run}: holds several labs; name one:\n{listed}")


def _open_once(file: Path, emulator: Emulator, *, everything: bool) -> Sequence[Item]:
    import trio

    from patchbay.lab.open import open_lab

    spec = read_spec(file)

    async def items() -> Sequence[Item]:
        async with open_lab(spec, label=file.stem, emulator=emulator) as lab:
            return lab.commands if everything else lab.plan

    return trio.run(items)


def _namespace(items: Sequence[Item], node: str) -> str:
    """Return a node's namespace, by the name that the user gave it or by its own."""
    from patchbay.errors import did_you_mean

    made = {item.owner.partition("#")[0]: item.why for item in reversed(items) if not item.ns}
    for ns, why in made.items():
        if node == ns or f"'{node}'" in why:
            return ns
    raise fail(f"unknown node '{node}'; known: {', '.join(reversed(made))}{did_you_mean(node, made)}")


def _print_table(items: Sequence[Item]) -> None:
    from rich.console import Console
    from rich.table import Table

    from patchbay.record.journal import Record
    from patchbay.tools.commands import in_namespace

    if records := [item for item in items if isinstance(item, Record)]:
        table = Table("seq", "ms", "status", "command", "why", box=None, pad_edge=False)
        for r in records:
            status = "not run" if r.status is None else f"{r.status}{' undone' if r.undone else ''}"
            table.add_row(str(r.seq), f"{r.elapsed * 1000:.1f}", status, in_namespace(r.ns, r.argv), r.why)
    else:
        table = Table("command", "why", box=None, pad_edge=False)
        for item in items:
            table.add_row(in_namespace(item.ns, item.argv), item.why)
    Console().print(table, markup=False)
