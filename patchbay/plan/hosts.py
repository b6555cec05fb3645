"""Names of the lab, as the hosts and resolv.conf files that its processes see."""

from __future__ import annotations

from patchbay.layout.layout import Address, Layout, Names, NodeLayout
from patchbay.model.names import LOOPBACK_NAMES, spellings
from patchbay.plan.resources import Phase, Resource, Resources
from patchbay.tools.commands import RemoveFile, WriteFile

__all__ = ["FILES", "hosts_line", "name_resources", "names_files", "own_file"]

# In the lab's private /run. A node's processes have copies of them in /etc: of the lab's files, or of the
# files of a node with names of its own.
FILES = ("hosts", "resolv.conf")

_LOCAL = f"127.0.0.1 localhost\n::1 {' '.join(LOOPBACK_NAMES)}\n"
# A file without a name server makes strict resolvers give up (hickory, dnspython), and others ask a public
# one. Nothing listens on the loopback interface, which refuses at once.
_NO_SERVER = "# No name server was set: questions are refused at once.\nnameserver 127.0.0.1\n"


def own_file(name: str, ns: str) -> str:
    """Return the path of a node's own file."""
    return f"/run/patchbay/{ns}/{name}"


def names_files(layout: Layout, node: NodeLayout) -> dict[str, str]:
    """Return the files of the lab that a node's files in /etc are copied from: name -> path."""
    if node.name in layout.names.scopes():
        return {name: own_file(name, node.ns) for name in FILES}
    return {name: f"/run/patchbay/{name}" for name in FILES}


def _hosts(names: Names, scope: str) -> str:
    """Return a hosts file with the node's own names first, because the first line wins."""
    own = names.hosts.get(scope, {})
    entries = {**own, **{name: at for name, at in names.hosts.get("", {}).items() if name not in own}}
    return _LOCAL + "".join(
        hosts_line(address, name) for name, addresses in entries.items() for address in addresses
    )


def hosts_line(address: Address, name: str) -> str:
    return f"{address} {' '.join(spellings(name))}\n"


def _resolv_conf(names: Names, scope: str) -> str:
    server = names.nameservers.get(scope) or names.nameservers.get("")
    return f"nameserver {server}\n" if server else _NO_SERVER


_CONTENT = {"hosts": _hosts, "resolv.conf": _resolv_conf}


def name_resources(layout: Layout) -> Resources:
    """Return the files of all nodes together, and those of nodes with names of their own."""
    for scope in ("", *sorted(layout.names.scopes())):
        node = layout.node(scope) if scope else layout.ix
        assert node, f"names of '{scope}', which the lab does not have"
        whom = f"'{scope}'" if scope else "every node"
        why = f"tell {whom} the names it can look up"
        for name, content in _CONTENT.items():
            path = own_file(name, node.ns) if scope else f"/run/patchbay/{name}"
            write = WriteFile(path, content(layout.names, scope), why=why, owner=node.ns)
            yield ("file", path), Resource((write,), (RemoveFile(path, why=why, owner=node.ns),), Phase.NAMES)
