"""`patchbay inspect`, `run-in` and `shell`: a lab to look around in."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchbay.model.link import Emulator
from patchbay_cli.common import EmulatorOption, errors_end_plainly, fail, read_spec

if TYPE_CHECKING:
    from patchbay.lab.lab import Lab

__all__ = ["inspect", "run_in", "shell"]

_Inspect = Annotated[
    str | None, typer.Option("--inspect", metavar="ID", help="Which held lab, if there are several.")
]
_Node = Annotated[str, typer.Argument(help="A device, a router, or ix for the exchange.", metavar="NODE")]


def inspect(
    file: Annotated[Path, typer.Argument(help="A lab file or a sim file (TOML).", metavar="FILE")],
    lab_id: Annotated[
        str | None, typer.Option("--id", help="What run-in and shell call it; default: the file's name.")
    ] = None,
    emulator: EmulatorOption = Emulator.AUTO,
) -> None:
    """Hold a lab open until Ctrl-C.

    `patchbay run-in` and `patchbay shell` in other terminals run programs in the lab meanwhile.
    """
    import trio

    from patchbay.record.folder import file_stem

    if lab_id is not None and file_stem(lab_id) != lab_id:
        accepted = f"letters, digits, '.', '_' and '-', such as {file_stem(lab_id)}"
        raise fail(f"--id: found {lab_id!r}; accepted: {accepted}")
    with errors_end_plainly():
        spec = read_spec(file)

        async def hold() -> None:
            from patchbay.lab.attach import answer_clients, listen
            from patchbay.lab.open import open_lab

            name = file_stem(file.stem) if lab_id is None else lab_id
            with listen(name) as listener, _until_asked_to_end():
                async with (
                    open_lab(spec, label=file.stem, emulator=emulator) as lab,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(answer_clients, lab, listener)
                    _print_nodes(lab, name)

        trio.run(hold)


@contextlib.contextmanager
def _until_asked_to_end() -> Iterator[None]:
    """Ctrl-C and its like cancel the block, also while its lab is being opened: a way to end, no failure."""
    import trio

    with trio.CancelScope() as scope:
        token = trio.lowlevel.current_trio_token()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, lambda *_: token.run_sync_soon(scope.cancel))
        yield


def _print_nodes(lab: Lab, name: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("node", "kind", "IPv4", "IPv6", "below", box=None, pad_edge=False)
    for router in lab.routers:
        below = ", ".join(str(n) for n in (router.downstream_cidr, router.downstream_cidr_v6) if n)
        table.add_row(router.name, "router", str(router.ip or ""), str(router.ip6 or ""), below)
    for device in lab.devices:
        table.add_row(device.name, "device", str(device.ip or ""), str(device.ip6 or ""), "")
    console = Console()
    console.print(table, markup=False)
    console.print(
        f"\nheld open as {name} until Ctrl-C; elsewhere:\n"
        "  patchbay shell NODE\n  patchbay run-in NODE -- COMMAND...",
        markup=False,
        highlight=False,
    )
    sys.stdout.flush()


def run_in(
    node: _Node,
    command: Annotated[list[str], typer.Argument(help="What to run, behind --.", metavar="CMD...")],
    inspect: _Inspect = None,
) -> None:
    """Run a command in a node of a held lab.

    The lab is one that `patchbay inspect` holds open. The exit status is that of the command.
    """
    _enter(node, inspect, command)


def shell(node: _Node, inspect: _Inspect = None) -> None:
    """Open a shell in a node of a held lab.

    The lab is one that `patchbay inspect` holds open. The shell is $SHELL, or /bin/sh.
    """
    _enter(node, inspect, [os.environ.get("SHELL", "/bin/sh")])


def _enter(node: str, lab_id: str | None, command: list[str]) -> None:
    from patchbay.lab.attach import connect
    from patchbay.sandbox.relay import end_like, relay
    from patchbay.sandbox.spawn import Spawn
    from patchbay.sandbox.terminal import on_terminal

    with errors_end_plainly():
        conversation, ns, variables = connect(node, lab_id)
    what = Spawn(command, variables)
    if all(os.isatty(fd) for fd in (0, 1, 2)):
        end_like(on_terminal(conversation, what, ns))
    end_like(relay(conversation, {"spawn": what.request(ns, (0, 1, 2))}, (0, 1, 2)))
