"""The kinds of node, and regions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from attrs import frozen

from patchbay.addressing.layout import Address, DeviceLayout, Network, RouterLayout, of_version
from patchbay.lab.links import LinkStats
from patchbay.lab.node import Node
from patchbay.model.lab import Firewall, IpSupport, Nat, NatV6
from patchbay.model.link import Condition, Direction, LinkCondition

__all__ = ["Device", "Iface", "Ix", "Region", "Router"]


@frozen
class Iface:
    """A device's interface to be: the router (or its name) that it hangs on, and its link's condition."""

    router: Router | str
    link: LinkCondition | Mapping[str, Any] | str | None = None


class Device(Node):
    """A host at the edge of the network."""

    _layout: DeviceLayout

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
        await self._lab._links.set(("link", self.name, self.iface(iface).name), condition, direction)

    async def link_stats(self, iface: str) -> LinkStats:
        """What each direction of the link of an interface has done since it has had a condition."""
        self._usable()
        return await self._lab._links.stats(("link", self.name, self.iface(iface).name))

    @property
    def default_iface(self) -> str:
        """The interface of its default routes."""
        return self._layout.default_via

    @property
    def mtu(self) -> int:
        """The MTU of its interfaces, in bytes."""
        return self._layout.mtu or 1500


class _Forwarder(Node):
    _layout: RouterLayout

    @property
    def downstream_gw(self) -> IPv4Address | None:
        """Its own IPv4 address on its LAN."""
        address = of_version(self._layout.lan.addresses, 4)
        return address.ip if address else None  # type: ignore[return-value]

    @property
    def downstream_gw_v6(self) -> IPv6Address | None:
        """Its own IPv6 address on its LAN."""
        address = of_version(self._layout.lan.addresses, 6)
        return address.ip if address else None  # type: ignore[return-value]

    @property
    def downstream_cidr(self) -> IPv4Network | None:
        """The IPv4 network below it."""
        return _first(self._layout.networks, 4)  # type: ignore[return-value]

    @property
    def downstream_cidr_v6(self) -> IPv6Network | None:
        """The IPv6 prefix below it; its LAN has the first /64."""
        return _first(self._layout.networks, 6)  # type: ignore[return-value]


def _first(networks: Iterable[Network], version: int) -> Network | None:
    return next((network for network in networks if network.version == version), None)


class Router(_Forwarder):
    """A router: an uplink, a LAN, and between them what its NAT and firewall let through."""

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
        await self._lab._links.set(("downlink", self.name), condition, direction)

    async def downlink_stats(self) -> LinkStats:
        """What each direction of its downlink has done since it has had a condition."""
        self._usable()
        return await self._lab._links.stats(("downlink", self.name))

    @property
    def downlink(self) -> Condition:
        """The present condition of its downlink."""
        return self._lab._links.condition(("downlink", self.name))

    @property
    def uplink_ip(self) -> IPv4Address | None:
        """Its outside IPv4 address."""
        return self.ip

    @property
    def uplink_ip6(self) -> IPv6Address | None:
        """Its outside IPv6 address."""
        return self.ip6

    @property
    def nat(self) -> Nat:
        return self._layout.nat

    @property
    def nat_v6(self) -> NatV6:
        return self._layout.nat_v6

    @property
    def firewall(self) -> Firewall:
        return self._layout.firewall

    @property
    def ip_support(self) -> IpSupport:
        return self._layout.ip_support

    @property
    def region(self) -> str | None:
        """The name of the region it is in, directly or by a router above it."""
        return self._layout.region

    @property
    def upstream(self) -> str | None:
        """The name of the router above it; None for one on the exchange or in a region."""
        kind, _, name = (self._layout.parent or "").partition(":")
        return name if kind == "router" else None

    @property
    def mtu(self) -> int:
        """The MTU of its uplink, in bytes."""
        return self._layout.mtu or 1500


class Ix(_Forwarder):
    """The exchange that every router without an upstream hangs on. It forwards, and filters nothing."""

    def _address(self, version: int) -> Address | None:
        address = of_version(self._layout.lan.addresses, version)
        return address.ip if address else None


class Region(_Forwarder):
    """A part of the world: a network of its own, through which the routers in it are routed."""

    def _address(self, version: int) -> Address | None:
        address = of_version(self._layout.lan.addresses, version)
        return address.ip if address else None

    @property
    def routers(self) -> tuple[Router, ...]:
        """The routers in it."""
        return tuple(router for router in self.lab.routers if router.region == self.name)
