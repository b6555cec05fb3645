"""`patchbay natcheck`: which NAT is on the way out of here."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from patchbay_cli.common import errors_end_plainly, fail

if TYPE_CHECKING:
    from patchbay.testing.report import NatReport

__all__ = ["natcheck"]

_PORT = 3478  # RFC 8489 section 8.1

# Filtering takes a server with two addresses (OTHER-ADDRESS, RFC 5780), and few public servers have two. The
# first two are the defaults of other programs that classify NATs. The others probably have one address each;
# two such servers show whether the mapping depends on the remote address. None of them was tried where this
# was written, and none is promised: --server names others.
_PUBLIC = (
    "stunserver2025.stunprotocol.org",
    "stun.voip.blackberry.com",
    "stun.cloudflare.com",
    "stun.l.google.com:19302",
)


class _Protocol(StrEnum):
    UDP = "udp"
    TCP = "tcp"
    BOTH = "both"


def natcheck(
    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server",
            metavar="HOST[:PORT]",
            help=f"A STUN server, port {_PORT} if none is given; may be repeated. One with two addresses "
            "(RFC 5780; coturn with two listening IPs) tells everything, two others the mapping. Default: "
            "some public ones.",
        ),
    ] = None,
    protocol: Annotated[
        _Protocol, typer.Option("--protocol", help="By TCP, filtering stays unknown.")
    ] = _Protocol.UDP,
    timeouts: Annotated[
        bool,
        typer.Option(
            "--timeouts", help="Measure how long an idle UDP mapping lasts: takes minutes, 11 at the most."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of reports, one a protocol.")] = False,
    node: Annotated[
        str | None,
        typer.Option("--node", metavar="NODE", help="In a node of a lab that `patchbay inspect` holds open."),
    ] = None,
    inspect: Annotated[
        str | None, typer.Option("--inspect", metavar="ID", help="Which held lab, if there are several.")
    ] = None,
) -> None:
    """Find out which NAT this network is behind.

    Prints mapping, filtering, hairpin and ports of the NAT between this network and a STUN server. Sends STUN
    requests, and changes nothing. What cannot be found out is printed with the reason. Terms are those of RFC
    4787; the method is that of RFC 5780, section 4.

    Exit status 0 if at least one protocol could be examined, 2 for bad input or if no server answered.

    In a lab: patchbay run-in NODE -- patchbay natcheck --server ADDRESS, which is what --node does too.
    """
    servers = [_endpoint(text) for text in server or _PUBLIC]
    if node is not None:
        given = [word for text in server or () for word in ("--server", text)]
        flags = [*(["--timeouts"] if timeouts else []), *(["--json"] if as_json else [])]
        _in_node(node, inspect, [*given, "--protocol", protocol, *flags])
    if inspect is not None:
        raise fail("--inspect says in which lab --node is: give --node too")
    protocols = ["udp", "tcp"] if protocol is _Protocol.BOTH else [protocol.value]
    with errors_end_plainly():
        reports = _classify(servers, protocols, timeouts)
    if as_json:
        typer.echo(json.dumps([report.as_dict() for report in reports], indent=2))
    elif not all(report.blocked for report in reports):
        _print(reports)
    if all(report.blocked for report in reports):
        raise fail(_nobody(reports, by_default=not server))


def _in_node(node: str, inspect: str | None, words: Sequence[str]) -> None:
    """Run the same command as a process of the node. Does not return."""
    from patchbay_cli.inspect import run_in

    try:
        run_in(node, [sys.executable, "-m", "patchbay_cli.main", "natcheck", *words], inspect)
    except typer.Exit as end:
        # Its own 1 is for a node or a lab that is not there: here that is bad input, as in the help.
        raise typer.Exit(end.exit_code and 2) from None


def _endpoint(text: str) -> tuple[str, int]:
    """Read `host`, `host:port`, `[IPv6]:port` or a bare IPv6 address."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = text, str(_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not _may_be_host(host) or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= 65535:
        raise fail(f"--server {text}: expected HOST or HOST:PORT, with a port from 1 to 65535")
    return host, int(port)


def _may_be_host(text: str) -> bool:
    with suppress(UnicodeError):
        return bool(text.encode("idna"))
    return False


def _classify(
    servers: Sequence[tuple[str, int]], protocols: Sequence[str], timeouts: bool
) -> list[NatReport]:
    import trio

    from patchbay.testing.classify import classify_nat

    async def classify() -> list[NatReport]:
        # One after another: what the one protocol does must not look like the other's neighbours.
        return [
            await classify_nat(None, servers, protocol=each, timeouts=timeouts and each == "udp")
            for each in protocols
        ]

    return trio.run(classify)


def _nobody(reports: Sequence[NatReport], *, by_default: bool) -> str:
    notes = dict.fromkeys(note for report in reports for note in report.notes)
    tried = " and ".join(report.protocol.upper() for report in reports)
    way_out = (
        "are you online? Where public STUN servers are blocked or gone, name one with --server HOST[:PORT]"
        if by_default
        else f"does it run, listen to {tried}, and can it be reached from here?"
    )
    return "\n".join(
        (f"no STUN server answered by {tried}", *(f"  {note}" for note in notes), f"  {way_out}")
    )


# The table


def _print(reports: Sequence[NatReport]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", *(report.protocol.upper() for report in reports), box=None, pad_edge=False)
    columns = [_rows(report) for report in reports]
    for heading in columns[0]:
        table.add_row(heading, *(column[heading] for column in columns))
    console = Console()
    console.print(table, markup=False, highlight=False)
    notes = [f"{report.protocol.upper()} {note}" for report in reports for note in report.notes]
    if notes:
        console.print("\n".join(("", *notes)), markup=False, highlight=False)


def _rows(report: NatReport) -> dict[str, str]:
    if report.blocked:
        return dict.fromkeys(_HEADINGS, "") | {"NAT": "blocked"}
    server = f"{report.server[0]} port {report.server[1]}" if report.server else ""
    words = {True: "yes", False: "no", None: "not known"}
    nat = (
        f"{report.local} is seen as {report.mapped}"
        if report.nat
        else f"none, {report.local} is seen as it is"
    )
    return dict(
        zip(
            _HEADINGS,
            (
                nat,
                str(report.mapping or "not known") if report.nat else "-",
                str(report.filtering or "not known"),
                words[report.hairpin] if report.nat else "-",
                f"{report.ports}{_examples(report)}" if report.nat else "-",
                report.lifetime or "not measured",
                server,
            ),
            strict=True,
        )
    )


_HEADINGS = ("NAT", "mapping", "filtering", "hairpin", "ports", "timeout", "server")


def _examples(report: NatReport) -> str:
    pairs = ", ".join(f"{inside} -> {outside}" for inside, outside in report.observed[:3])
    return f" ({pairs})" if pairs else ""
