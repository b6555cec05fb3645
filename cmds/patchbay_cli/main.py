"""The command line `patchbay`."""

from __future__ import annotations

from typing import Annotated

import typer

from patchbay_cli.doctor import doctor
from patchbay_cli.inspect import inspect, run_in, shell
from patchbay_cli.nat_matrix import nat_matrix
from patchbay_cli.natcheck import natcheck
from patchbay_cli.plan import plan
from patchbay_cli.run import run
from patchbay_cli.trace import trace

__all__ = ["app", "main"]

app = typer.Typer(
    name="patchbay",
    help="Realistic networks out of Linux network namespaces, with real code in them. Without root.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run)
app.command()(plan)
app.command()(trace)
app.command()(inspect)
# So that `--` may be left out where the command's own options are none of ours.
app.command("run-in", context_settings={"ignore_unknown_options": True})(run_in)
app.command()(shell)
app.command()(natcheck)
app.command("nat-matrix")(nat_matrix)
app.command()(doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"patchbay {version('patchbay')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Realistic networks out of Linux network namespaces, with real code in them. Without root."""


def main() -> None:
    """Run the command line: the console script."""
    app()


if __name__ == "__main__":
    main()
