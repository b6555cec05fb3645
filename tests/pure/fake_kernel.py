"""A kernel of a few tables, as strict as the real one about what must be there before what.

It knows the commands that plans consist of, and no others. Each message is the real one's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from attrs import define, field

from patchbay.plan.plan import Plan
from patchbay.tools.commands import Command, Ip, Nft, SetSysctl, WriteFile

__all__ = ["Kernel", "Refused"]

Words = list[str]

UNREACHABLE = "unreachable"


class Refused(Exception):
    """What the kernel said to a command."""


@define
class Link:
    kind: str
    mac: str
    peer: tuple[str, str] | None = None
    master: str | None = None
    mtu: int = 1500
    up: bool = False
    ipv6: bool = True
    addresses: set[Any] = field(factory=set)


@define
class Namespace:
    links: dict[str, Link] = field(factory=lambda: {"lo": Link("loopback", "")})
    indexes: dict[str, str] = field(factory=dict)
    routes: dict[Any, tuple[Any, str, int | None]] = field(factory=dict)
    neighbours: dict[tuple[str, Any], str] = field(factory=dict)
    sysctls: dict[str, str] = field(factory=dict)
    ruleset: str = ""


def _options(words: Words, *names: str) -> dict[str, str]:
    """The options of these names; one that is not among them is an error of the test's."""
    found = {}
    rest = list(words)
    while rest:
        name = rest.pop(0)
        assert name in names, f"the fake kernel does not know {name!r} of {words}"
        found[name] = rest.pop(0)
    return found


def _refuse(condition: object, message: str) -> None:
    if condition:
        raise Refused(message)


@define
class Kernel:
    """Namespaces by name; the lab's own, in which nothing is made, is not among them."""

    namespaces: dict[str, Namespace] = field(factory=dict)
    files: dict[str, str] = field(factory=dict)
    made: list[str] = field(factory=list)

    def run(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self.do(command)

    def do(self, command: Command) -> None:
        """Carry the command out. Raises `Refused` unless the command tolerates what there is to say."""
        if isinstance(command, WriteFile):
            self.files[command.path] = command.content
            return
        if command.ns is not None:
            assert command.ns in self.namespaces, f"{command} is run before its namespace is made"
        try:
            if isinstance(command, Nft):
                self.namespaces[command.ns].ruleset = command.ruleset
            elif isinstance(command, SetSysctl):
                self._sysctl(self.namespaces[command.ns], command.name, command.value)
            else:
                self._ip(command.ns, list(command.args))
        except Refused as refused:
            tolerated = command.tolerate if isinstance(command, Ip) else ()
            if not any(text in str(refused) for text in tolerated):
                raise Refused(f"{refused}: {command}") from None

    def _sysctl(self, ns: Namespace, name: str, value: str) -> None:
        parts = name.split("/")
        if parts[2] == "conf" and parts[3] not in ("all", "default"):
            _refuse(parts[3] not in ns.links, "No such file or directory")
            assert parts[4] == "disable_ipv6"
            ns.links[parts[3]].ipv6 = value == "0"
        ns.sysctls[name] = value

    def _ip(self, ns: str | None, words: Words) -> None:
        verb = f"{words.pop(0)} {words.pop(0)}"
        outside: dict[str, Callable[[Words], None]] = {
            "netns add": self._netns_add,
            "netns del": self._netns_del,
            "link add": self._link_add,
        }
        inside: dict[str, Callable[[Namespace, Words], None]] = {
            "link set": self._link_set,
            "link del": self._link_del,
            "addr add": self._addr_add,
            "route add": self._route_add,
            "route del": self._route_del,
            "neigh replace": self._neigh_replace,
            "neigh flush": self._neigh_flush,
        }
        if ns is None:
            outside[verb](words)
        else:
            inside[verb](self.namespaces[ns], words)

    # -- namespaces and links

    def _netns_add(self, words: Words) -> None:
        (name,) = words
        _refuse(name in self.namespaces, "File exists")
        self.namespaces[name] = Namespace()
        self.made.append(name)

    def _netns_del(self, words: Words) -> None:
        """What had an end in there stays in the other namespace, as in the real one for a while."""
        (name,) = words
        _refuse(name not in self.namespaces, "No such file or directory")
        del self.namespaces[name]

    def _drop(self, ns: str, name: str) -> None:
        link = self.namespaces[ns].links[name]
        for there, dev in filter(None, ((ns, name), link.peer)):
            if there not in self.namespaces:
                continue
            space = self.namespaces[there]
            del space.links[dev]
            space.routes = {net: route for net, route in space.routes.items() if route[1] != dev}
            space.neighbours = {key: mac for key, mac in space.neighbours.items() if key[0] != dev}
            space.indexes = {index: at for index, at in space.indexes.items() if at != dev}

    def _new_link(self, words: Words) -> tuple[str, str, Link]:
        up = "up" in words
        options = _options(
            [word for word in words if word != "up"],
            *("name", "index", "netns", "address", "mtu", "master", "numtxqueues", "numrxqueues"),
        )
        name, where = options["name"], options["netns"]
        _refuse(where not in self.namespaces, 'Invalid "netns" value')
        space = self.namespaces[where]
        _refuse(name in space.links or options.get("index") in space.indexes, "File exists")
        _refuse(name in ("all", "default") or len(name.encode()) > 15, "Invalid argument")
        master = space.indexes.get(options["master"].removeprefix("if")) if "master" in options else None
        _refuse("master" in options and master is None, "Invalid argument")
        ipv6 = space.sysctls.get("net/ipv6/conf/default/disable_ipv6", "0") == "0"
        link = Link("", options["address"], None, master, int(options.get("mtu", 1500)), up, ipv6)
        space.links[name] = link
        if "index" in options:
            space.indexes[options["index"]] = name
        return where, name, link

    def _link_add(self, words: Words) -> None:
        at = words.index("type")
        where, name, link = self._new_link(words[:at])
        link.kind = words[at + 1]
        if link.kind == "bridge":
            _options(words[at + 2 :], "mcast_snooping")
            return
        assert words[at + 1 : at + 3] == ["veth", "peer"]
        try:
            other, peer_name, peer = self._new_link(words[at + 3 :])
        except Refused:
            del self.namespaces[where].links[name]
            raise
        peer.kind, peer.peer, link.peer = "veth", (where, name), (other, peer_name)

    def _dev(self, ns: Namespace, name: str) -> Link:
        _refuse(name not in ns.links, "Cannot find device")
        return ns.links[name]

    def _link_set(self, ns: Namespace, words: Words) -> None:
        assert words.pop() == "up"
        self._dev(ns, _options(words, "dev")["dev"]).up = True

    def _link_del(self, ns: Namespace, words: Words) -> None:
        name = _options(words, "dev")["dev"]
        self._dev(ns, name)
        self._drop(next(where for where, space in self.namespaces.items() if space is ns), name)

    # -- addresses, routes, neighbours

    def _addr_add(self, ns: Namespace, words: Words) -> None:
        address = ip_interface(words.pop(0))
        link = self._dev(ns, _options([word for word in words if word != "nodad"], "dev")["dev"])
        if address.version == 6:
            _refuse(not link.ipv6, "Permission denied")
            _refuse(link.mtu < 1280, "Invalid argument")
        taken = {other.ip for each in ns.links.values() for other in each.addresses}
        _refuse(address.ip in taken, "Address already assigned")
        link.addresses.add(address)

    def _route(self, words: Words) -> tuple[Any, tuple[Any, str, int | None]]:
        if words[0] == UNREACHABLE:
            return ip_network(words[1]), (None, UNREACHABLE, None)
        target = words.pop(0)
        options = _options(words, "via", "dev", "mtu")
        via = ip_address(options["via"]) if "via" in options else None
        network = ip_network("0.0.0.0/0" if target == "default" else target)
        return network, (via, options["dev"], int(options["mtu"]) if "mtu" in options else None)

    def _route_add(self, ns: Namespace, words: Words) -> None:
        network, route = self._route(words)
        via, dev, _ = route
        if dev == UNREACHABLE:
            ns.routes[network] = route
            return
        link = self._dev(ns, dev)
        _refuse(not link.up, "Network is down")
        if via is not None:
            on_link = any(via in address.network and via != address.ip for address in link.addresses)
            on_link |= any(via in known and not to[0] and to[1] == dev for known, to in ns.routes.items())
            _refuse(not on_link, "Nexthop has invalid gateway")
        connected = {address.network for each in ns.links.values() for address in each.addresses}
        _refuse(network in ns.routes or network in connected, "File exists")
        ns.routes[network] = route

    def _route_del(self, ns: Namespace, words: Words) -> None:
        network, route = self._route(words)
        self._dev(ns, route[1])
        _refuse(ns.routes.get(network) != route, "No such process")
        del ns.routes[network]

    def _neigh_replace(self, ns: Namespace, words: Words) -> None:
        address = ip_address(words.pop(0))
        options = _options(words, "lladdr", "dev", "nud")
        _refuse(not self._dev(ns, options["dev"]).up, "Network is down")
        ns.neighbours[options["dev"], address] = options["lladdr"]

    def _neigh_flush(self, ns: Namespace, words: Words) -> None:
        options = _options(words, "to", "dev", "nud")
        self._dev(ns, options["dev"])
        ns.neighbours.pop((options["dev"], ip_address(options["to"])), None)

    # -- what a packet would see

    def owner(self, address: Any, start: str) -> str | None:
        """The namespace that a packet from `start` to `address` arrives in; None if it gets lost."""
        here: str | None = start
        for _ in range(64):
            if here is None:
                return None
            ns = self.namespaces[here]
            if any(address == own.ip for link in ns.links.values() for own in link.addresses):
                return here
            hop = self._hop(ns, address)
            here = self._at(here, *hop) if hop else None
        return None

    def _hop(self, ns: Namespace, address: Any) -> tuple[str, Any] | None:
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

    def _at(self, here: str, dev: str, address: Any) -> str | None:
        """The namespace that has `address` on the link that `dev` is an end of."""
        link = self.namespaces[here].links[dev]
        if link.kind == "bridge":
            bridge = here
        else:
            assert link.peer
            bridge = link.peer[0]
        return next((ns for ns, name in self._ends(bridge) if self._has(ns, name, address)), None)

    def _ends(self, bridge: str) -> Iterator[tuple[str, str]]:
        links = self.namespaces[bridge].links
        for name, link in links.items():
            if link.kind == "bridge":
                yield bridge, name
            elif link.master and link.peer:
                yield link.peer

    def _has(self, ns: str, name: str, address: Any) -> bool:
        link = self.namespaces[ns].links[name]
        return link.up and any(address == own.ip for own in link.addresses)


def lanes(plan: Plan) -> Sequence[tuple[list[Command], dict[str | None, list[Command]]]]:
    """Of each stage what is made, and what is configured in each namespace."""
    found = []
    for stage in plan.stages:
        configure: dict[str | None, list[Command]] = {}
        for command in stage.configure:
            configure.setdefault(command.ns, []).append(command)
        found.append((list(stage.make), configure))
    return found
