"""The common part of the commands: ending with a plain error, and reading labs from files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchbay.model.link import Emulator

if TYPE_CHECKING:
    from patchbay.config.draft import Draft
    from patchbay.model.lab import LabSpec

__all__ = ["BAD_INPUT", "EmulatorOption", "errors_end_plainly", "fail", "read_spec", "read_topology"]

BAD_INPUT = 2

EmulatorOption = Annotated[
    Emulator,
    typer.Option(
        "--emulator",
        help="What puts links into their conditions: the kernel's netem, a relay in userspace, or the "
        "first where there is one (auto).",
    ),
]


def fail(message: str, code: int = BAD_INPUT) -> typer.Exit:
    """Say why the command ends; to be raised."""
    typer.echo(message, err=True)
    return typer.Exit(code)


@contextlib.contextmanager
def errors_end_plainly() -> Iterator[None]:
    """End the command with patchbay's own errors as text, without a traceback."""
    from patchbay.errors import AllocationError, HostError, PatchbayError, SpecError

    try:
        yield
    except PatchbayError as error:
        bad = isinstance(error, SpecError | AllocationError | HostError)
        raise fail(str(error), BAD_INPUT if bad else 1) from None


def read_topology(path: Path) -> Draft:
    """Return the topology of a lab file or of a sim file, and what cannot be read of it."""
    from patchbay.config.topology_file import draft_topology

    return draft_topology(path)


def read_spec(path: Path) -> LabSpec:
    """Return the topology of a lab file or of a sim file. Raises `SpecError` with every problem of it."""
    from patchbay.layout.allocate import lay_out

    draft = read_topology(path)
    lay_out(draft)
    return draft.spec
