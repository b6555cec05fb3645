"""Blocks of ports: which outside address and ports each host below a port-block NAT has for itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from math import ceil

from attrs import evolve, frozen

from patchbay.errors import AllocationError
from patchbay.layout.builder import host_of
from patchbay.layout.layout import (
    IfaceLayout,
    Interface,
    Layout,
    NodeLayout,
    PolicyLayout,
    RouterLayout,
    host_counter,
    of_version,
)
from patchbay.model.names import NsName
from patchbay.model.nat import FIRST_PORT, config_of

__all__ = ["PAGE", "Block", "block_of", "pages", "with_blocks"]

# Blocks begin at multiples of 256, so that a rule can put a port together from two bytes.
PAGE = 256
_PAGES = (65536 - FIRST_PORT) // PAGE


@frozen
class Block:
    """A number of ports of an outside address, from `first` on."""

    outside: IPv4Address
    first: int
    size: int


def pages(size: int) -> int:
    """Return how many times 256 ports a block takes up."""
    return ceil(size / PAGE)


def block_of(router: RouterLayout, policy: PolicyLayout, size: int, number: int) -> Block:
    """Return the block of that number: the first ones at the uplink's address, the next ones in the pool."""
    per_address = _PAGES // pages(size)
    place, page = divmod(number, per_address)
    assert router.uplink is not None
    own = of_version(router.uplink.addresses, 4)
    assert own is not None
    outside = own.ip if place == 0 else policy.pool[place - 1]
    return Block(outside, FIRST_PORT + page * pages(size) * PAGE, size)  # type: ignore[arg-type]


def with_blocks(layout: Layout) -> Layout:
    """Return the layout in which every host below a port-block NAT has a block, with the addresses for that.

    RFC 6888 REQ-2: all ports of a host are at one outside address ("paired"). Raises `AllocationError`.
    """
    hanging: dict[NsName, list[tuple[NodeLayout, IfaceLayout]]] = {}
    for router in layout.forwarders.values():
        size = _block_size(layout.policy(router))
        if size is None or router.uplink is None or of_version(router.uplink.addresses, 4) is None:
            continue
        if not hanging:
            for node in layout.nodes():
                for iface in node.ifaces:
                    hanging.setdefault(iface.router_ns, []).append((node, iface))
        layout = _with_blocks_of(layout, router, size, hanging)
    return layout


def _block_size(policy: PolicyLayout) -> int | None:
    config = config_of(policy.nat)
    return config.port_allocation.block if config else None


def _with_blocks_of(
    layout: Layout,
    router: RouterLayout,
    size: int,
    hanging: Mapping[NsName, list[tuple[NodeLayout, IfaceLayout]]],
) -> Layout:
    policy = layout.policy(router)
    numbers = dict(policy.blocks)
    for host in _inside(layout, router, hanging):
        numbers.setdefault(host, len(numbers))
    wanted = ceil(len(numbers) / (_PAGES // pages(size))) - 1
    pool, counters = list(policy.pool), dict(layout.allocations.counters)
    parent = layout.forwarders[router.parent or ""]
    gateway = of_version(parent.lan.addresses, 4)
    assert gateway is not None
    while len(pool) < wanted:
        number = counters[host_counter(parent.ns)]
        counters[host_counter(parent.ns)] = number + 1
        pool.append(_next_address(parent, gateway, number, router, size))
    if numbers == policy.blocks and len(pool) == len(policy.pool):
        return layout
    policy = evolve(policy, blocks=numbers, pool=tuple(pool))
    allocations = evolve(layout.allocations, counters=counters)
    return evolve(layout, allocations=allocations, policies={**layout.policies, router.ns: policy})


def _next_address(
    parent: RouterLayout, gateway: Interface, number: int, router: RouterLayout, size: int
) -> IPv4Address:
    try:
        return host_of(parent, gateway, number).ip  # type: ignore[return-value]
    except AllocationError as error:
        each = f"router '{router.name}' needs an outside address for every {_PAGES // pages(size)} hosts"
        way_out = f"; give it smaller blocks than {size} ports"
        raise AllocationError(f"{each} below it: {error}{way_out}") from None


def _inside(
    layout: Layout, router: RouterLayout, hanging: Mapping[NsName, list[tuple[NodeLayout, IfaceLayout]]]
) -> Iterator[IPv4Address]:
    """Return the addresses that the router sees from below: those behind another NAT share its own."""
    for node, iface in hanging.get(router.ns, ()):
        address = of_version(iface.addresses, 4)
        if address is not None:
            yield address.ip  # type: ignore[misc]
        if isinstance(node, RouterLayout) and config_of(layout.policy(node).nat) is None:
            yield from _inside(layout, node, hanging)
