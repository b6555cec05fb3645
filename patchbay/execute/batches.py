"""Commands grouped: those that one process of a tool can do at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, assert_never

from attrs import frozen

from patchbay.sandbox.inside.kept import LONGEST
from patchbay.tools.commands import (
    CheckQdiscs,
    Command,
    EndService,
    Ip,
    Nft,
    RemoveFile,
    SetSysctl,
    StartService,
    Tc,
    WriteFile,
)

__all__ = ["Batch", "batches", "step"]

# Characters. The rules of a router are up to 20,000.
_TRANSACTION = 50_000


# The commands of an `ip` that is kept. It remembers interfaces by name, so none may be replaced.
_ADDING = (("netns", "add"), ("link", "add"))


@frozen
class Batch:
    """Commands that one tool runs together."""

    commands: tuple[Command, ...]

    @property
    def forgiving(self) -> bool:
        """Return whether errors of single commands may be none: then all of them are tried."""
        return any(isinstance(command, Ip | Tc) and command.tolerate for command in self.commands)

    @property
    def only_adds(self) -> bool:
        """Return True if the batch only adds namespaces and links, from the lab's own namespace."""
        return all(c.ns is None and isinstance(c, Ip) and c.args[:2] in _ADDING for c in self.commands)

    @property
    def lane(self) -> str:
        """Batches of one lane keep their order."""
        return self.commands[0].ns or ""


def batches(commands: Sequence[Command]) -> Iterator[Batch]:
    """Runs of commands that one tool in one namespace can do at once."""
    group: list[Command] = []
    for command in commands:
        if group and not (_together(group[-1], command) and _fits(group, command)):
            yield Batch(tuple(group))
            group = []
        group.append(command)
    if group:
        yield Batch(tuple(group))


def _together(one: Command, other: Command) -> bool:
    if type(one) is not type(other) or isinstance(one, CheckQdiscs | StartService | EndService):
        return False
    # The agent writes settings and files of any namespace; a tool runs in one.
    return one.ns == other.ns if isinstance(one, Ip | Tc | Nft) else True


def _fits(group: Sequence[Command], command: Command) -> bool:
    """Return whether a transaction of nft is not too long for what a user namespace may send at once.

    That is net.core.wmem_max, 208 KiB by default, and twice that in the kernel's reckoning (socket(7)). An
    element in four times its text is the worst that was seen. Rules that belong together come first.
    """
    if not isinstance(command, Nft):
        return True
    return sum(len(each.stdin) for each in (*group, command)) <= _TRANSACTION


def step(batch: Batch) -> list[Any]:
    """Return the batch as the agent reads it."""
    match batch.commands[0]:
        case Ip() if batch.only_adds and len(text := _lines(batch)) <= LONGEST:
            return ["keep", text]
        case (Ip() | Tc()) as first:
            how, force = ("try", ["-force"]) if batch.forgiving else ("exec", [])
            return [how, first.ns, [first.tool, *force, "-batch", "-"], _lines(batch)]
        case CheckQdiscs() as first:
            return ["exec", first.ns, list(first.argv), ""]
        case Nft() as first:
            return ["exec", first.ns, list(first.argv), _ruleset(batch)]
        case SetSysctl():
            settings = [c for c in batch.commands if isinstance(c, SetSysctl)]
            return ["sysctl", [[c.ns, c.name, c.value, c.optional] for c in settings]]
        case WriteFile():
            return ["write", [[c.path, c.content] for c in batch.commands if isinstance(c, WriteFile)]]
        case RemoveFile():
            return ["remove", [[c.path] for c in batch.commands if isinstance(c, RemoveFile)]]
        case StartService() | EndService():
            raise TypeError("the agent does not read services: the program speaks with them")
        case first:
            assert_never(first)


def _lines(batch: Batch) -> str:
    return "".join(" ".join(c.args) + "\n" for c in batch.commands if isinstance(c, Ip | Tc))


def _ruleset(batch: Batch) -> str:
    return "".join(command.ruleset for command in batch.commands if isinstance(command, Nft))
