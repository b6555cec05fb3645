"""`patchbay plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchbay.model.link import Emulator
from patchbay_cli.common import EmulatorOption, errors_end_plainly, read_topology

__all__ = ["plan"]


def plan(
    file: Annotated[Path, typer.Argument(help="A lab file or a sim file (TOML).", metavar="FILE")],
    emulator: EmulatorOption = Emulator.AUTO,
) -> None:
    """Print the commands that a lab would run.

    Changes nothing, needs no privileges, works on any OS. Which emulator a lab here would have follows from
    this machine's files; `patchbay doctor` tries it.
    """
    from attrs import evolve

    from patchbay.config.lab_file import read_toml
    from patchbay.config.topology_file import is_sim
    from patchbay.layout.allocate import lay_out
    from patchbay.plan.change import between
    from patchbay.plan.text import as_text

    with errors_end_plainly():
        layout = lay_out(read_topology(file))
        if is_sim(read_toml(file)):
            from patchbay.sim.spec.load import load_sim

            load_sim(file)  # its steps have to be right as well
    if emulator is Emulator.AUTO and layout.wires:
        from patchbay.sandbox.netem import expected

        emulator = Emulator.NETEM if expected() else Emulator.USERSPACE
    layout = evolve(layout, emulator=emulator)
    typer.echo(as_text(between(None, layout), f"the lab of {file}"), nl=False)
