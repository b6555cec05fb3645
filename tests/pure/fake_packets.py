"""The way of a packet through a fake kernel: routes from node to node, frames through bridges and relays."""

from collections.abc import Iterator
from typing import Any

from tests.pure.fake_kernel import UNREACHABLE, Kernel, Namespace

__all__ = ["crossed", "owner"]

Place = tuple[str, str]


def owner(kernel: Kernel, address: Any, start: str) -> str | None:
    """The namespace that a packet from `start` to `address` arrives in; None if it gets lost."""
    here: str | None = start
    for _ in range(64):
        if here is None:
            return None
        ns = kernel.namespaces[here]
        if any(address == own.ip for link in ns.links.values() for own in link.addresses):
            return here
        hop = _hop(ns, address)
        here = _at(kernel, (here, hop[0]), hop[1]) if hop else None
    return None


def crossed(kernel: Kernel, address: Any, start: str) -> list[str]:
    """The nodes on the way of such a packet, with the first and the last that it reaches."""
    nodes = [start]
    while nodes[-1] != owner(kernel, address, nodes[-1]):
        hop = _hop(kernel.namespaces[nodes[-1]], address)
        there = _at(kernel, (nodes[-1], hop[0]), hop[1]) if hop else None
        if there is None:
            break
        nodes.append(there)
    return nodes


def _hop(ns: Namespace, address: Any) -> tuple[str, Any] | None:
    choices: list[tuple[int, str, Any]] = [
        (own.network.prefixlen, name, address)
        for name, link in ns.links.items()
        for own in link.addresses
        if address in own.network
    ]
    choices += [
        (network.prefixlen, dev, via or address)
        for network, (via, dev, _) in ns.routes.items()
        if address.version == network.version and address in network
    ]
    best = max(choices, key=lambda choice: choice[0], default=None)
    return best[1:] if best and best[1] != UNREACHABLE else None


def _at(kernel: Kernel, start: Place, address: Any) -> str | None:
    """The namespace whose interface answers for `address` where a frame from `start` gets to.

    A neighbour that is permanent is not asked for: its MAC must be that of the interface.
    """
    ns, dev = start
    known = kernel.namespaces[ns].neighbours.get((dev, address))
    found = {}
    for there, name in reached(kernel, start):
        links = kernel.namespaces[there].links
        if known is not None:
            answers = links[name].mac == known
        elif address.version == 6:
            # Told of only by the interface that has it; an IPv4 address by any.
            answers = any(address == own.ip for own in links[name].addresses)
        else:
            answers = links[name].arp and any(
                address == own.ip for link in links.values() for own in link.addresses
            )
        if answers:
            found[there, name] = there
    # Of two interfaces of a device on one LAN both answer; of a router, only the one that has the address.
    bridges = [place for place in found if kernel.namespaces[place[0]].links[place[1]].kind == "bridge"]
    assert len({*found.values()}) <= 1 and len(bridges) <= 1, f"{start} finds {address} at {sorted(found)}"
    return next(iter(found.values()), None)


def reached(kernel: Kernel, start: Place) -> Iterator[Place]:
    """The interfaces, no ports of a bridge, that a broadcast from an interface arrives at."""
    waiting, entered = [*_sent(kernel, start)], set()
    while waiting:
        port = waiting.pop()
        assert port not in entered, f"frames go in circles through {port}"
        entered.add(port)
        ns, name = port
        link = kernel.namespaces[ns].links[name]
        if link.master is None:
            yield port
            continue
        waiting += [there for place in _forwarded(kernel, port) for there in _sent(kernel, place)]
        if kernel.namespaces[ns].links[link.master].up:
            yield ns, link.master


def _sent(kernel: Kernel, place: Place) -> Iterator[Place]:
    """Where a frame goes that leaves by an interface."""
    ns, name = place
    link = kernel.namespaces[ns].links[name]
    if not link.up:
        return
    if link.kind == "bridge":
        ports = [each for each, port in kernel.namespaces[ns].links.items() if port.master == name]
        for port in ports:
            yield from _sent(kernel, (ns, port))
    elif link.peer and kernel.namespaces[link.peer[0]].links[link.peer[1]].up:
        yield link.peer


def _forwarded(kernel: Kernel, port: Place) -> Iterator[Place]:
    """The other ports that a frame leaves by which came in by one: of the bridge, or of the relay."""
    ns, name = port
    links = kernel.namespaces[ns].links
    master = links[name].master
    assert master
    for (at, _), args in kernel.services.items():
        if at == ns and name in (args[1], args[3]):
            assert not links[master].up, f"{master} in {ns} and a relay carry the same frames"
            yield ns, args[3] if name == args[1] else args[1]
    if links[master].up:
        yield from ((ns, each) for each, link in links.items() if link.master == master and each != name)
