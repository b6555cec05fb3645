"""Traits that follow from a NAT's configuration: the parts that it needs, and the keys of its sets."""

from __future__ import annotations

from attrs import frozen

from patchbay.model.nat import Behavior, NatConfig

__all__ = ["CLOSING", "Traits", "join"]

# Idle time of TCP connections that are not established, or closed: RFC 5382 REQ-5 wants 4 minutes at least.
CLOSING = 240


def join(*parts: str) -> str:
    """Join expressions to a concatenation of nft."""
    return " . ".join(parts)


@frozen
class Traits:
    """A configuration at a router: `outside` is the first of its addresses, `zone` is
    the first of two conntrack zones that its connections are in. `maps_ports`: whether inside hosts ask for
    ports besides.
    """

    config: NatConfig
    zone: int
    outside: str
    maps_ports: bool = False

    @property
    def independent(self) -> bool:
        return self.config.mapping is Behavior.ENDPOINT_INDEPENDENT

    @property
    def lets_in(self) -> bool:
        """Return True if hosts that were never sent to may come in."""
        return self.config.filtering is not Behavior.ADDRESS_AND_PORT_DEPENDENT

    @property
    def hairpin(self) -> bool:
        # With filtering by endpoint, what an inside host sends has to come from the port that it has
        # towards everybody.
        return self.config.hairpin and (self.lets_in or self.independent)

    @property
    def finds_inside(self) -> bool:
        return self.lets_in or self.hairpin

    @property
    def answers(self) -> bool:
        """Return True if a connection from outside that is answered becomes the inside endpoint's mapping."""
        return self.lets_in or (self.maps_ports and not self.blocks)

    @property
    def two_zones(self) -> bool:
        """Return True if a remote endpoint may come in by another mapping than the one towards it.

        Both connections have the same two endpoints inside. In one conntrack zone they would clash, and the
        kernel would change the remote port to tell them apart.
        """
        return self.lets_in and not self.independent

    @property
    def blocks(self) -> bool:
        return self.config.port_allocation.block is not None

    @property
    def protocols(self) -> str:
        listed = ", ".join(self.config.protocols)
        return f"{{ {listed} }}"

    @property
    def l4(self) -> str:
        return f"meta l4proto {self.protocols}"

    @property
    def outsides(self) -> str:
        """Return its outside addresses: a set if they grow with the hosts, so that the rules stay."""
        return "@outside" if self.blocks else f"{{ {self.outside} }}"

    @property
    def address(self) -> str:
        """Return the outside address of the inside host of a packet."""
        return "ct original ip saddr map @outside_address" if self.blocks else self.outside

    @property
    def towards(self) -> tuple[str, ...]:
        """Return what else a mapping depends on, for a connection that was begun inside."""
        return {
            Behavior.ENDPOINT_INDEPENDENT: (),
            Behavior.ADDRESS_DEPENDENT: ("ct original ip daddr",),
            Behavior.ADDRESS_AND_PORT_DEPENDENT: ("ct original ip daddr", "ct original proto-dst"),
        }[self.config.mapping]

    @property
    def inside_key(self) -> str:
        return join("meta l4proto", "ct original ip saddr", "ct original proto-src", *self.towards)

    @property
    def maps(self) -> bool:
        """Return True if a map keeps mappings. conntrack itself keeps one for each remote endpoint."""
        return self.config.mapping is not Behavior.ADDRESS_AND_PORT_DEPENDENT

    @property
    def closing(self) -> int:
        return min(CLOSING, self.config.tcp_established_timeout)
