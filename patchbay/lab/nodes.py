"""The kinds of node, and regions."""

from __future__ import annotations

import socket as stdlib_socket
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import trio
from attrs import frozen

from patchbay.change.links import SetDownlinkCondition, SetLinkCondition
from patchbay.change.made import made_of
from patchbay.change.policies import FlushNat, SetFirewall, SetNat
from patchbay.lab.links import LinkStats
from patchbay.lab.node import Node
from patchbay.layout.layout import (
    Address,
    DeviceLayout,
    Layout,
    Network,
    PolicyLayout,
    RouterLayout,
    of_version,
)
from patchbay.layout.wires import condition_of
from patchbay.model.firewall import Firewall, FirewallConfig
from patchbay.model.lab import IpSupport, NatV6
from patchbay.model.link import Condition, Direction, LinkCondition
from patchbay.model.nat import Nat, NatConfig

__all__ = ["Device", "Iface", "Ix", "Region", "Router"]


@frozen
class Iface:
    """The interface of a new device: the router above, or its name, and the condition of the link."""

    router: Router | str
    link: LinkCondition | Mapping[str, Any] | str | None = None


class Device(Node):
    """A host at the edge of the network."""

    def _find(self, layout: Layout) -> DeviceLayout | None:
        return layout.devices.get(self._name)

    @property
    def _layout(self) -> DeviceLayout:
        found = super()._layout
        assert isinstance(found, DeviceLayout)
        return found

    def _address(self, version: int) -> Address | None:
        iface = self._layout.default_iface(version)
        address = of_version(iface.addresses, version) if iface else None
        return address.ip if address else None

    async def set_link_condition(
        self,
        iface: str,
        condition: LinkCondition | Mapping[str, Any] | str | None,
        *,
        direction: Direction | str = Direction.BOTH,
    ) -> None:
        """Put the link of an interface into a condition, from the next packet on; None clears it.

        `condition` is a preset's name such as "wifi", a `LinkCondition`, or a dict of its fields. What it
        does not say stays as it is: `{"loss_pct": 5}` leaves the latency alone. `direction` limits the change
        to packets that go "up", away from the device, or "down". Connections go on. Raises `SpecError`,
        `CommandFailed`, `KeyError` for an interface that is not there; then the link is as it was.
        """
        self._usable()
        await self._core.apply(
            made_of(
                SetLinkCondition,
                device=self.name,
                interface=self.iface(iface).name,
                **_given(condition),
                direction=direction,
            )
        )

    async def link_stats(self, iface: str) -> LinkStats:
        """Return what each direction of an interface's link has done since the link has had a condition."""
        self._usable()
        return await self._core.links.stats(("link", self.name, self.iface(iface).name))

    async def probe_udp_mapping(
        self,
        reflector: tuple[str, int],
        *,
        port: int = 0,
        socket: stdlib_socket.socket | trio.socket.SocketType | None = None,
    ) -> tuple[str, int]:
        """Return the outside endpoint that a UDP socket of the device gets, as the other side sees it.

        `reflector` is what another node's `reflector()` gives, or the (host, port) of a STUN server. The
        socket is a fresh one, at `port` if that is given; or it is `socket`, which stays open, so that the
        same socket can be probed towards several servers. Raises `ValueError` for both, `OSError` for a
        port that is taken, and `trio.TooSlowError` if nothing answers within 6 s.
        """
        from patchbay.lab.reflector import mapped_endpoint

        if socket is not None and port:
            raise ValueError("name either `port` or `socket`: a socket has its port already")
        if isinstance(socket, trio.socket.SocketType):
            return await mapped_endpoint(socket, reflector)
        # A duplicate of a given socket, because trio closes what it wraps.
        plain = socket.dup() if socket else self._udp_socket(reflector[0], port)
        try:
            with trio.socket.from_stdlib_socket(plain) as sock:
                return await mapped_endpoint(sock, reflector)
        finally:
            if socket:
                socket.settimeout(socket.gettimeout())  # trio has made both non-blocking

    def _udp_socket(self, towards: str, port: int) -> stdlib_socket.socket:
        v6 = ":" in towards
        plain = self.socket(stdlib_socket.AF_INET6 if v6 else stdlib_socket.AF_INET, stdlib_socket.SOCK_DGRAM)
        try:
            plain.bind(("::" if v6 else "0.0.0.0", port))
        except BaseException:
            plain.close()
            raise
        return plain

    @property
    def default_iface(self) -> str:
        """Return the interface of the default routes."""
        return self._layout.default_via

    @property
    def mtu(self) -> int:
        """Return the MTU of the interfaces, in bytes."""
        return self._layout.mtu or 1500


class _Forwarder(Node):
    @property
    def _layout(self) -> RouterLayout:
        found = super()._layout
        assert isinstance(found, RouterLayout)
        return found

    @property
    def downstream_gw(self) -> IPv4Address | None:
        """Return its own IPv4 address on its LAN."""
        address = of_version(self._layout.lan.addresses, 4)
        return address.ip if address else None  # type: ignore[return-value]

    @property
    def downstream_gw_v6(self) -> IPv6Address | None:
        """Return its own IPv6 address on its LAN."""
        address = of_version(self._layout.lan.addresses, 6)
        return address.ip if address else None  # type: ignore[return-value]

    @property
    def downstream_cidr(self) -> IPv4Network | None:
        """Return the IPv4 network below it."""
        return _first(self._layout.networks, 4)  # type: ignore[return-value]

    @property
    def downstream_cidr_v6(self) -> IPv6Network | None:
        """Return the IPv6 prefix below it; its LAN has the first /64."""
        return _first(self._layout.networks, 6)  # type: ignore[return-value]


def _given(condition: object) -> dict[str, object]:
    """Return the field of a change that sets a condition. None is left out, which clears the link."""
    return {} if condition is None else {"condition": condition}


def _first(networks: Iterable[Network], version: int) -> Network | None:
    return next((network for network in networks if network.version == version), None)


class Router(_Forwarder):
    """A router: an uplink, a LAN, and between them what its NAT and firewall let through."""

    def _find(self, layout: Layout) -> RouterLayout | None:
        return layout.router(self._name)

    def _address(self, version: int) -> Address | None:
        address = of_version(self._layout.uplink.addresses, version) if self._layout.uplink else None
        return address.ip if address else None

    async def set_downlink_condition(
        self,
        condition: LinkCondition | Mapping[str, Any] | str | None,
        *,
        direction: Direction | str = Direction.BOTH,
    ) -> None:
        """Put the way between the router and all that is below it into a condition; None clears it.

        Everything below shares it: a rate is that of all together. Otherwise as `set_link_condition`.
        """
        self._usable()
        change = made_of(SetDownlinkCondition, router=self.name, **_given(condition), direction=direction)
        await self._core.apply(change)

    async def downlink_stats(self) -> LinkStats:
        """Return what each direction of the downlink has done since it has had a condition."""
        self._usable()
        return await self._core.links.stats(("downlink", self.name))

    @property
    def downlink(self) -> Condition:
        """Return the present condition of its downlink."""
        return condition_of(self._core.visible, ("downlink", self.name))

    @property
    def uplink_ip(self) -> IPv4Address | None:
        """Return its outside IPv4 address."""
        return self.ip

    @property
    def uplink_ip6(self) -> IPv6Address | None:
        """Return its outside IPv6 address."""
        return self.ip6

    async def set_nat_mode(self, nat: Nat | NatConfig | Mapping[str, Any] | str) -> None:
        """Replace the NAT, as a reboot of the router into another mode would: all its connections are
        forgotten, in the moment in which the new rules act. No packet passes untranslated in between.

        `nat` is a preset's name, a `Nat`, a `NatConfig`, or a dict of its fields. Addresses and routes stay
        as they are: a network that was private without a NAT is still unknown above. Port mappings are
        forgotten too; without a NAT none are served. Raises `SpecError`, `AllocationError` (not enough
        outside addresses for blocks of ports), `CommandFailed`; then all is as it was.
        """
        self._usable()
        await self._core.apply(made_of(SetNat, router=self.name, nat=nat))

    async def flush_nat_state(self) -> None:
        """Forget all mappings and connections, as a reboot of the router would; the firewall's too.

        Also the ports that hosts have asked for (`port_mapping`), whose server is restarted.
        """
        self._usable()
        await self._core.apply(FlushNat(self.name))

    async def set_firewall(self, firewall: Firewall | FirewallConfig | Mapping[str, Any] | str) -> None:
        """Replace the firewall, and leave NAT and established connections alone.

        `firewall` is a preset's name, a `Firewall`, a `FirewallConfig`, or a dict of its fields. Raises
        `SpecError`, `CommandFailed`; then all is as it was.
        """
        self._usable()
        await self._core.apply(made_of(SetFirewall, router=self.name, firewall=firewall))

    @property
    def _policy(self) -> PolicyLayout:
        return self._core.visible.policy(self._layout)

    @property
    def nat(self) -> Nat | NatConfig:
        """Return its present NAT: a preset, or a configuration."""
        return self._policy.nat

    @property
    def nat_v6(self) -> NatV6:
        return self._policy.nat_v6

    @property
    def firewall(self) -> Firewall | FirewallConfig:
        """Return its present firewall: a preset, or a configuration."""
        return self._policy.firewall

    @property
    def block_icmp_frag_needed(self) -> bool:
        """Return True if it drops the ICMP errors that say that a packet was too large."""
        return self._policy.block_icmp_frag_needed

    @property
    def port_mapping(self) -> bool:
        """Return True if hosts below may map ports by UPnP IGD, NAT-PMP and PCP while it has a NAT."""
        return self._policy.port_mapping

    @property
    def ip_support(self) -> IpSupport:
        return self._layout.ip_support

    @property
    def region(self) -> str | None:
        """Return the name of its region, which may be that of a router above."""
        return self._layout.region

    @property
    def upstream(self) -> str | None:
        """Return the name of the router above; None on the exchange or in a region."""
        kind, _, name = (self._layout.parent or "").partition(":")
        return name if kind == "router" else None

    @property
    def mtu(self) -> int:
        """Return the MTU of its uplink, in bytes."""
        return self._layout.mtu or 1500


class Ix(_Forwarder):
    """The exchange, to which routers without an upstream are attached. It forwards and filters nothing."""

    def _find(self, layout: Layout) -> RouterLayout | None:
        return layout.ix

    def _address(self, version: int) -> Address | None:
        address = of_version(self._layout.lan.addresses, version)
        return address.ip if address else None


class Region(_Forwarder):
    """A part of the world: a network of its own, through which the routers in it are routed."""

    def _find(self, layout: Layout) -> RouterLayout | None:
        return layout.region(self._name)

    def _address(self, version: int) -> Address | None:
        address = of_version(self._layout.lan.addresses, version)
        return address.ip if address else None

    @property
    def routers(self) -> tuple[Router, ...]:
        """Return the routers in the region."""
        return tuple(router for router in self.lab.routers if router.region == self.name)
