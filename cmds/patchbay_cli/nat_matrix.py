"""`patchbay nat-matrix`: which pairs of NATs hole punching connects, by theory and in a lab."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from patchbay_cli.common import errors_end_plainly

if TYPE_CHECKING:
    from patchbay.model.nat import Nat, NatConfig

__all__ = ["nat_matrix"]

_HEAD = """# Which pairs of NATs hole punching connects

Two hosts behind different NATs, introduced by a rendezvous server that both have sent to, send to
each other's outside endpoint at once (RFC 5128). "yes": both hear of each other. This page is the output
of `patchbay nat-matrix`: each cell was computed from the RFCs (`patchbay.testing.connects`){measured}.
"""


def nat_matrix(
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--theory",
            help="Try each pair in a lab too, for some seconds, and fail where it is not as computed.",
        ),
    ] = True,
) -> None:
    """Print which pairs of NATs connect.

    The tables, in Markdown, say whether hole punching connects two hosts by UDP and by TCP: for the presets,
    and for the nine classes of mapping (EIM, ADM, APDM: endpoint-independent,
    address-dependent, address and port-dependent) and filtering (EIF, ADF, APDF). Exit status 1 if a
    measurement differs from theory: each is named on stderr.
    """
    with errors_end_plainly():
        wrong = _measured() if measure else []
    for line in wrong:
        typer.echo(line, err=True)
    typer.echo(_page(measured=measure), nl=False)
    if wrong:
        raise typer.Exit(1)


def _presets() -> dict[str, Nat | NatConfig]:
    from patchbay.model.nat import Nat

    return {str(nat): nat for nat in Nat}


def _classes() -> dict[str, Nat | NatConfig]:
    from patchbay.model.nat import Behavior, NatConfig

    return {
        f"{mapping.short}M {filtering.short}F": NatConfig(mapping, filtering)
        for mapping in Behavior
        for filtering in Behavior
    }


def _measured() -> list[str]:
    """Return a line for each difference from theory."""
    import trio
    from rich.console import Console
    from rich.progress import Progress

    from patchbay.testing.punching import measure_matrix
    from patchbay.testing.theory import connects

    nats = {**_presets(), **_classes()}
    pairs = len(nats) * (len(nats) + 1) // 2
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("punching", total=2 * pairs)
        found = trio.run(measure_matrix, nats, ("udp", "tcp"), lambda: progress.advance(task))
    words = {True: "yes", False: "no"}
    return [
        f"{protocol}: {a} and {b}: theory says {words[not works]}, measured {words[works]}"
        for (protocol, a, b), works in found.items()
        if works != connects(nats[a], nats[b], protocol)
    ]


def _page(*, measured: bool) -> str:
    parts = [_HEAD.format(measured=",\nand measured in a lab, at both ends" if measured else "")]
    for protocol, title in (("udp", "UDP"), ("tcp", "TCP, by simultaneous open")):
        for what, nats in (("the presets", _presets()), ("the classes", _classes())):
            parts.append(f"## {title}: {what}\n\n{_table(nats, protocol)}")
    return "\n".join(parts)


def _table(nats: Mapping[str, Nat | NatConfig], protocol: str) -> str:
    from patchbay.testing.theory import matrix

    rows: Sequence[Sequence[str]] = matrix(nats.values(), protocol)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:], ""])
