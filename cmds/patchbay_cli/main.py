"""The command line `patchbay`."""

from __future__ import annotations

import typer

from patchbay_cli.doctor import doctor
from patchbay_cli.inspect import inspect, run_in, shell
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
app.command("run-in")(run_in)
app.command()(shell)
app.command()(doctor)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
