"""The commands that make up a plan: a closed union of frozen values that know how they look in a shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import ClassVar, Protocol

from attrs import field, frozen

from patchbay.model.names import IfName, NsName
from patchbay.tools.service import Service
from patchbay.tools.tc import Netem, Tbf

__all__ = [
    "CheckQdiscs",
    "Command",
    "Describable",
    "EndService",
    "Ip",
    "Nft",
    "RemoveFile",
    "SetSysctl",
    "StartService",
    "Tc",
    "WriteFile",
    "by_hand",
    "describe",
    "heading",
    "in_namespace",
]


@frozen
class _Command:
    """Attributes that every command has.

    `why` is a phrase: "give router 'home' its LAN". `owner` is the namespace of the node for whose sake the
    command is run, or a part of it, `NS#PART`: what a node owns goes when the node goes. `stdin` is the
    input; `how` says how the command is really done, where that is not the command line itself.
    """

    why: str = field(kw_only=True)
    owner: str = field(kw_only=True)

    @property
    def stdin(self) -> str:
        return ""

    @property
    def how(self) -> str:
        return ""


@frozen
class _Line(_Command):
    """One command that runs as a line of a tool's batch.

    `ns` is the namespace it runs in, None the lab's own. `tolerate` holds error texts of the kernel that are
    no failure here.
    """

    tool: ClassVar[str]

    ns: NsName | None
    args: tuple[str, ...]
    tolerate: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def argv(self) -> tuple[str, ...]:
        return (self.tool, *self.args)

    @property
    def how(self) -> str:
        return f"as a line of {self.tool} -batch -"


@frozen
class Ip(_Line):
    """One `ip` command."""

    tool: ClassVar[str] = "ip"


@frozen
class Tc(_Line):
    """One `tc` command."""

    tool: ClassVar[str] = "tc"


@frozen
class CheckQdiscs(_Command):
    """Reads the qdiscs of a namespace back: one that is not what was asked for is an error."""

    ns: NsName
    wanted: Mapping[IfName, tuple[Netem, Tbf | None]]

    @property
    def argv(self) -> tuple[str, ...]:
        return ("tc", "-j", "qdisc", "show")

    @property
    def how(self) -> str:
        return "compared with what was asked for"


@frozen
class StartService(_Command):
    """Starts a service, or lets one of that name that runs follow a change of its arguments."""

    service: Service

    @property
    def ns(self) -> NsName:
        return self.service.ns

    @property
    def argv(self) -> tuple[str, ...]:
        return ("python3", "-m", self.service.module, *self.service.args)

    @property
    def how(self) -> str:
        return "forked from the agent, or sent to the one that runs"


@frozen
class EndService(_Command):
    """Ends a service; none of that name is fine."""

    service: Service

    @property
    def ns(self) -> NsName:
        return self.service.ns

    @property
    def argv(self) -> tuple[str, ...]:
        return ("pkill", "--full", self.service.name)

    @property
    def how(self) -> str:
        return "asked for by the agent"


@frozen
class Nft(_Command):
    """Commands of nft. Those that follow each other in a namespace are one transaction."""

    ns: NsName
    ruleset: str

    @property
    def argv(self) -> tuple[str, ...]:
        return ("nft", "-f", "-")

    @property
    def stdin(self) -> str:
        return self.ruleset

    @property
    def how(self) -> str:
        return "in one transaction with those of the namespace around it"


@frozen
class SetSysctl(_Command):
    """One kernel setting. `name` has slashes, as below /proc/sys, since interface names may have dots.

    `optional`: only where the kernel has it.
    """

    ns: NsName
    name: str
    value: str
    optional: bool = field(default=False, kw_only=True)

    @property
    def argv(self) -> tuple[str, ...]:
        return ("sysctl", "-eqw" if self.optional else "-qw", f"{self.name}={self.value}")

    @property
    def how(self) -> str:
        return "written through /proc/sys"


@frozen
class WriteFile(_Command):
    """A file of the lab, below its private /run. Replaces what was there."""

    path: str
    content: str
    ns: NsName | None = field(default=None, kw_only=True)

    @property
    def argv(self) -> tuple[str, ...]:
        return ("tee", self.path)

    @property
    def stdin(self) -> str:
        return self.content

    @property
    def how(self) -> str:
        return "written by the agent"


@frozen
class RemoveFile(_Command):
    """Takes a file of the lab away; a file that is not there is fine."""

    path: str
    ns: NsName | None = field(default=None, kw_only=True)

    @property
    def argv(self) -> tuple[str, ...]:
        return ("rm", "-f", self.path)

    @property
    def how(self) -> str:
        return "removed by the agent"


Command = Ip | Tc | CheckQdiscs | Nft | SetSysctl | WriteFile | RemoveFile | StartService | EndService


class Describable(Protocol):
    """A command to be run, or the record of one that was."""

    @property
    def ns(self) -> str | None: ...
    @property
    def argv(self) -> tuple[str, ...]: ...
    @property
    def stdin(self) -> str: ...
    @property
    def why(self) -> str: ...


def describe(command: Describable) -> str:
    """Return the lines of shell that do what the command does, inside the lab."""
    if command.argv[0] == "pkill":
        # A process that has ended by itself is as good.
        return in_namespace(command.ns, command.argv) + " || :\n"
    if not command.stdin:
        return in_namespace(command.ns, command.argv) + "\n"
    end = "EOF"
    while end in command.stdin.splitlines():
        end += "F"
    text = f"<<'{end}'\n{command.stdin.rstrip(chr(10))}\n{end}\n"
    if command.argv[0] == "tee":
        folder, path = command.argv[1].rpartition("/")[0], shlex.quote(command.argv[1])
        return f"mkdir -p {shlex.quote(folder)}\ncat > {path} {text}"
    return f"{in_namespace(command.ns, command.argv)} {text}"


def heading(command: Describable) -> str:
    """Return a comment that says what the command, and those after it with the same heading, are for."""
    return f"\n# {' '.join(command.why.split())}\n"


def in_namespace(ns: str | None, argv: tuple[str, ...]) -> str:
    """Return the command line that runs `argv` in `ns`, for a shell inside the lab."""
    enter = ("nsenter", f"--net=/run/netns/{ns}") if ns else ()
    return shlex.join((*enter, *argv))


def by_hand(command: Command) -> str:
    """Return the command as one would type it in a shell inside the lab, without its input."""
    return in_namespace(command.ns, command.argv)
