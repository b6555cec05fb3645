"""What the processes of a node see beside its network: its host name, names, and folders of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import asdict, frozen

from patchbay.layout.layout import Address, DeviceLayout, Layout, NodeLayout, RouterLayout, of_version
from patchbay.plan.hosts import names_files

__all__ = ["Userland", "userland"]

# Debian Policy's address for the host name of a machine without a permanent address.
_NO_ADDRESS = "127.0.1.1"


@frozen
class Userland:
    """`files` leads to the files of the lab that a node's /etc/hosts and /etc/resolv.conf are copied from.

    `own_names` are lines for /etc/hosts alone, and `private` folders that are empty in the node.
    """

    hostname: str
    own_names: str
    files: dict[str, str]
    private: tuple[str, ...]

    def message(self) -> dict[str, Any]:
        """Return the plain values of which a message is made."""
        return asdict(self)


def userland(layout: Layout, node: NodeLayout) -> Userland:
    """Return what the processes of a node see now."""
    return Userland(
        hostname=node.name,
        own_names=_own_names(layout, node),
        files=names_files(layout, node),
        private=node.private if isinstance(node, DeviceLayout) else (),
    )


def _own_names(layout: Layout, node: NodeLayout) -> str:
    """Return the lines for the host name, unless the lab has names for it or hosts(5) cannot have it."""
    given = layout.names.resolve(node.name, node.name) is not None
    if given or not node.name.isprintable() or any(sign.isspace() or sign == "#" for sign in node.name):
        return ""
    addresses = [str(address) for address in _addresses(node)] or [_NO_ADDRESS]
    return "".join(f"{address} {node.name}\n" for address in addresses)


def _addresses(node: NodeLayout) -> Iterator[Address]:
    for version in (4, 6):
        interface = of_version(_outside(node, version), version)
        if interface:
            yield interface.ip


def _outside(node: NodeLayout, version: int) -> Any:
    """Return the addresses by which others know the node: of its default interface, uplink, or LAN."""
    if isinstance(node, RouterLayout):
        return node.uplink.addresses if node.uplink else node.lan.addresses
    iface = node.default_iface(version)
    return iface.addresses if iface else ()
