"""What a tool said to a batch, and what one tells from it."""

from collections.abc import Callable

from attrs import frozen

from patchbay.execute.apply import _results
from patchbay.execute.batches import Batch
from patchbay.model.names import NsName
from patchbay.tools.commands import Command, Ip, Tc

A = NsName("a")


def ip(line: str, tolerate: tuple[str, ...] = (), ns: NsName | None = None) -> Ip:
    return Ip(ns, tuple(line.split()), why=f"do {line}", owner=A, tolerate=tolerate)


def tc(line: str, tolerate: tuple[str, ...] = (), ns: NsName = A) -> Tc:
    return Tc(ns, tuple(line.split()), why=f"do {line}", owner=A, tolerate=tolerate)


@frozen
class Recording:
    """What a tool said to a text, and what became of each command: its status, None for not run."""

    lines: tuple[str, ...]
    status: int
    stderr: str
    results: tuple[int | None, ...]
    tolerate: tuple[str, ...] = ()


def results(recording: Recording, command: Callable[..., Command] = ip) -> list[int | None]:
    batch = Batch(tuple(command(line, recording.tolerate) for line in recording.lines))
    raw = {"status": recording.status, "err": recording.stderr, "out": ""}
    return [result.status if result else None for result in _results(batch, raw)]
