"""Names of the lab, as the hosts and resolv.conf files that its processes see."""

from __future__ import annotations

from collections.abc import Mapping

from patchbay.layout.layout import Names
from patchbay.model.names import NsName
from patchbay.plan.plan import Plan, Stage
from patchbay.tools.commands import WriteFile

__all__ = ["FILES", "name_files", "own_file"]

# In the lab's private /run, bound over the files of these names in /etc. A node with names of its
# own has files of its own.
FILES = ("hosts", "resolv.conf")

_LOCAL = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


def own_file(name: str, ns: str) -> str:
    """Where a node's own file is."""
    return f"/run/patchbay/{ns}/{name}"


def _hosts(names: Names, scope: str) -> str:
    """The node's own names first, since the first line wins."""
    own = names.hosts.get(scope, {})
    entries = {**own, **{name: at for name, at in names.hosts.get("", {}).items() if name not in own}}
    return _LOCAL + "".join(f"{address} {name}\n" for name, address in entries.items())


def _resolv_conf(names: Names, scope: str) -> str:
    server = names.nameservers.get(scope) or names.nameservers.get("")
    return f"nameserver {server}\n" if server else "# no nameserver was set for this lab\n"


_CONTENT = {"hosts": _hosts, "resolv.conf": _resolv_conf}


def name_files(old: Names | None, new: Names, ns_of: Mapping[str, NsName]) -> Plan:
    """Writes the files whose content changed. `ns_of` has the namespace of each node with own names."""
    commands = []
    for scope in ("", *sorted(new.scopes())):
        known = old is not None and (not scope or scope in old.scopes())
        for name, content in _CONTENT.items():
            text = content(new, scope)
            if known and old is not None and content(old, scope) == text:
                continue
            owner = ns_of[scope] if scope else NsName("ix")
            path = own_file(name, owner) if scope else f"/run/patchbay/{name}"
            whom = f"'{scope}'" if scope else "every node"
            commands.append(WriteFile(path, text, f"tell {whom} the names it can look up", owner))
    return Plan((Stage(tuple(commands)),) if commands else ())
