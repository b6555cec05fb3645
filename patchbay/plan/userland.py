"""The machine that processes of a node see beside its network: host name, names, and private folders."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

from attrs import asdict, frozen

from patchbay.layout.layout import Address, DeviceLayout, Layout, NodeLayout, RouterLayout, of_version
from patchbay.model.names import NODE_NAME_BYTES, host_name_problem, slug
from patchbay.plan.hosts import hosts_line, names_files

__all__ = ["Userland", "userland"]

# Debian Policy's address for the host name of a machine without a permanent address.
_NO_ADDRESS = IPv4Address("127.0.1.1")


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
        hostname=_host_name(node),
        own_names=_own_names(layout, node),
        files=names_files(layout, node),
        private=node.private if isinstance(node, DeviceLayout) else (),
    )


def _host_name(node: NodeLayout) -> str:
    """Return the node's name, or what is most like it among names that can be looked up."""
    return slug(node.name, NODE_NAME_BYTES) if host_name_problem(node.name) else node.name


def _own_names(layout: Layout, node: NodeLayout) -> str:
    """Return the lines for the host name, unless the lab has addresses for it."""
    name = _host_name(node)
    if layout.names.resolve(node.name, name):
        return ""
    addresses = list(_addresses(node)) or [_NO_ADDRESS]
    return "".join(hosts_line(address, name) for address in addresses)


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
