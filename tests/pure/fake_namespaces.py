"""The tables of a fake kernel: namespaces, their interfaces, and what a new namespace has."""

from typing import Any

from attrs import define, field

from tests.pure.nft_text import TextTable

__all__ = ["TIMEOUTS", "Link", "Namespace"]

# What a new namespace has: Documentation/networking/nf_conntrack-sysctl.rst, in seconds.
TIMEOUTS = {
    "udp_timeout": "30",
    "udp_timeout_stream": "120",
    "tcp_timeout_close": "10",
    "tcp_timeout_close_wait": "60",
    "tcp_timeout_established": "432000",
    "tcp_timeout_fin_wait": "120",
    "tcp_timeout_last_ack": "30",
    "tcp_timeout_max_retrans": "300",
    "tcp_timeout_syn_recv": "60",
    "tcp_timeout_syn_sent": "120",
    "tcp_timeout_time_wait": "120",
    "tcp_timeout_unacknowledged": "300",
}
_NEW_SYSCTLS = {f"net/netfilter/nf_conntrack_{name}": value for name, value in TIMEOUTS.items()}


@define
class Link:
    kind: str
    mac: str
    peer: tuple[str, str] | None = None
    master: str | None = None
    mtu: int = 1500
    up: bool = False
    ipv6: bool = True
    arp: bool = True
    gso: int = 65535
    addresses: set[Any] = field(factory=set)
    # By parent: "root", or the class of the root that one hangs below.
    qdiscs: dict[str, tuple[str, ...]] = field(factory=dict)

    def copy(self) -> "Link":
        return Link(
            *(self.kind, self.mac, self.peer, self.master, self.mtu, self.up, self.ipv6, self.arp, self.gso),
            addresses=self.addresses.copy(),
            qdiscs=self.qdiscs.copy(),
        )


@define
class Namespace:
    links: dict[str, Link] = field(factory=lambda: {"lo": Link("loopback", "")})
    indexes: dict[str, str] = field(factory=dict)
    routes: dict[Any, tuple[Any, str, int | None]] = field(factory=dict)
    neighbours: dict[tuple[str, Any], str] = field(factory=dict)
    sysctls: dict[str, str] = field(factory=_NEW_SYSCTLS.copy)
    tables: dict[str, TextTable] = field(factory=dict)  # frozen, so that copies may share each table

    def copy(self) -> "Namespace":
        return Namespace(
            {name: link.copy() for name, link in self.links.items()},
            *(self.indexes.copy(), self.routes.copy(), self.neighbours.copy()),
            *(self.sysctls.copy(), self.tables.copy()),
        )
