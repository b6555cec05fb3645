"""`patchbay plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchbay_cli.common import errors_end_plainly, read_lab

__all__ = ["plan"]


def plan(
    file: Annotated[Path, typer.Argument(help="A lab file or a sim file (TOML).", metavar="FILE")],
) -> None:
    """Print the commands that a lab would run. Changes nothing, needs no privileges, works on any OS."""
    from patchbay.addressing.allocate import empty_layout, extend
    from patchbay.errors import SpecError
    from patchbay.plan.change import between
    from patchbay.plan.text import as_text

    with errors_end_plainly():
        spec = read_lab(file)
        try:
            layout = extend(empty_layout(), spec)
        except SpecError as error:
            raise SpecError(error.problems, str(file)) from None
    typer.echo(as_text(between(None, layout), f"the lab of {file}"), nl=False)
