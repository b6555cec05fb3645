"""Variables in texts: what they are, whether they are known, and what becomes of them.

`${id.capture}`, `${ip.NODE}`, `${ip6.NODE}`; `$PATCHBAY_IP_<DEVICE>` and `$PATCHBAY_IP_<DEVICE>_<IFACE>`,
also with `PATCHBAY_IP6` or the older `NETSIM_IP`, and with braces. `$${` is a plain `${`, for shells; every
other `$` is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from attrs import frozen

from patchbay.config.converter import Unacceptable
from patchbay.errors import did_you_mean
from patchbay.model.names import env_name, env_names
from patchbay.sim.spec.refs import Ref, parse_ref

__all__ = ["NodeAddress", "Part", "Spellings", "faults", "parse", "render", "unparse"]

_PREFIXES = "PATCHBAY_IP6|PATCHBAY_IP|NETSIM_IP"
_MARK = re.compile(rf"\$\$\{{|\$\{{([^{{}}]*)\}}|\$\{{|\$({_PREFIXES})_")
_BRACED = re.compile(rf"({_PREFIXES})_(.*)")
_WORD = re.compile(r"\w+", re.ASCII)
_NOT_YET = ("binary", "group", "matrix")
_ACCEPTED = "accepted: ${id.capture}, ${ip.NODE}, ${ip6.NODE}; $${...} for the shell's own"


@frozen
class NodeAddress:
    """A node's address of an IP version; `bare` if written as `$PATCHBAY_IP_<DEVICE>`.

    `iface` is None for the address by which others know the node.
    """

    version: int
    node: str
    bare: bool = False
    iface: str | None = None


@frozen
class _Fault:
    """A variable that is none, and why."""

    source: str
    message: str


Part = str | NodeAddress | Ref | _Fault


@frozen
class Spellings:
    """The spellings of nodes: `devices` behind `$PATCHBAY_IP_`, `nodes` in `${ip.NODE}`.

    `ifaces` are (device, interface) by what may be behind `$PATCHBAY_IP_`.
    """

    devices: Mapping[str, str]
    nodes: Mapping[str, str]
    ifaces: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, devices: Mapping[str, Iterable[str]], others: Iterable[str]) -> Spellings:
        """Map each node by its name, and by its upper-case name with '_'; the name as written wins.

        `devices` are the names of their interfaces by the name of a device.
        """
        as_is = {name: name for name in devices}
        spelled = {env_name(name): name for name in reversed([*devices])} | as_is
        more = list(others)
        nodes = {env_name(name): name for name in reversed(more)} | spelled | {name: name for name in more}
        ifaces = {
            name: (device, iface)
            for device, named in devices.items()
            for name, iface in env_names(device, named)
            if iface
        }
        return cls(spelled, nodes | as_is, ifaces)


def parse(text: str, spellings: Spellings) -> tuple[Part, ...]:
    """Cut `text` into plain text and variables."""
    return tuple(part for part in _parts(text, spellings) if part != "")


def _parts(text: str, spellings: Spellings) -> Iterator[Part]:
    at = 0
    for mark in _MARK.finditer(text):
        if mark.start() < at:
            continue
        yield text[at : mark.start()]
        at = mark.end()
        if mark[0] == "$${":
            yield "${"
        elif mark[0] == "${":
            yield _Fault("${", f"found '${{' without its '}}'; {_ACCEPTED}")
        elif mark[2]:
            name = _longest(text, at, (*spellings.devices, *spellings.ifaces))
            at += len(name)
            yield _address_variable(f"${mark[2]}_{name}", mark[2], name, spellings)
        elif braced := _BRACED.fullmatch(mark[1]):
            yield _address_variable(mark[0], braced[1], braced[2], spellings)
        else:
            yield _variable(mark[0], mark[1], spellings)
    yield text[at:]


def _longest(text: str, at: int, names: Iterable[str]) -> str:
    """Return the longest of `names` that is a whole word at `at`; else the word at `at`."""
    fitting = (
        name
        for name in names
        if text.startswith(name, at) and not _WORD.match(text[at + len(name) : at + len(name) + 1])
    )
    word = _WORD.match(text, at)
    return max(fitting, key=len, default=word[0] if word else "")


def _address_variable(source: str, prefix: str, name: str, spellings: Spellings) -> Part:
    version, bare = 6 if prefix == "PATCHBAY_IP6" else 4, not source.startswith("${")
    if name in spellings.devices:
        return NodeAddress(version, spellings.devices[name], bare)
    if name in spellings.ifaces:
        return NodeAddress(version, spellings.ifaces[name][0], bare, spellings.ifaces[name][1])
    return _Fault(source, f"unknown device in {source}{_known(name, spellings.devices)}")


def _variable(source: str, inner: str, spellings: Spellings) -> Part:
    head, dot, rest = inner.partition(".")
    if dot and head in ("ip", "ip6"):
        if rest in spellings.nodes:
            return NodeAddress(4 if head == "ip" else 6, spellings.nodes[rest])
        return _Fault(source, f"unknown node in {source}{_known(rest, spellings.nodes)}")
    if dot and head in _NOT_YET:
        return _Fault(source, f"{source} is not available in this version of patchbay")
    try:
        return parse_ref(inner)
    except Unacceptable:
        return _Fault(source, f"unknown variable {source}; {_ACCEPTED}")


def _known(wrong: str, spelled: Mapping[str, str]) -> str:
    names = sorted(set(spelled.values()))
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"; known: {listed}{did_you_mean(wrong, spelled)}" if names else "; there is none"


def faults(parts: Iterable[Part]) -> list[str]:
    """Return the problems of the variables of a text."""
    return [part.message for part in parts if isinstance(part, _Fault)]


def render(parts: Iterable[Part], value_of: Callable[[NodeAddress | Ref], str]) -> str:
    """Return the text with each variable replaced by its value."""
    return "".join(value_of(part) if isinstance(part, NodeAddress | Ref) else _plain(part) for part in parts)


def _plain(part: str | _Fault) -> str:
    return part if isinstance(part, str) else part.source


def unparse(parts: Iterable[Part]) -> str:
    """Return the text as a user would write it."""
    return "".join(_written(part) for part in parts)


def _written(part: Part) -> str:
    if isinstance(part, str):
        return part.replace("${", "$${")
    if isinstance(part, NodeAddress):
        family = "6" if part.version == 6 else ""
        iface = f"_{env_name(part.iface)}" if part.iface else ""
        variable = f"PATCHBAY_IP{family}_{env_name(part.node)}{iface}"
        # `$$PATCHBAY_IP_X` must not become `$${ip.X}`, which is no variable.
        if part.bare:
            return f"${variable}"
        return f"${{{variable}}}" if part.iface else f"${{ip{family}.{part.node}}}"
    return part.source if isinstance(part, _Fault) else f"${{{part}}}"
