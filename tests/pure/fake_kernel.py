"""A kernel of a few tables, as strict as the real one about what must be there before what.

It knows the commands that plans consist of, and no others. Each message is the real one's.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, assert_never

from attrs import define, evolve, field

from patchbay.plan.plan import Plan
from patchbay.tools import tc
from patchbay.tools.commands import (
    CheckQdiscs,
    Command,
    EndService,
    Ip,
    Nft,
    RemoveFile,
    SetSysctl,
    StartService,
    Tc,
    WriteFile,
)
from patchbay.tools.service import Service
from tests.pure.fake_namespaces import Link, Namespace
from tests.pure.nft_text import Elements, TextTable, read_commands

__all__ = ["UNREACHABLE", "Kernel", "Namespace", "Refused", "lanes"]

Words = list[str]

UNREACHABLE = "unreachable"

# The same few texts are read again and again.
ip_address = cache(ipaddress.ip_address)
ip_interface = cache(ipaddress.ip_interface)
ip_network = cache(ipaddress.ip_network)

# Verbs of `ip` by where they are run: in no namespace, or in one.
OUTSIDE = {"netns add", "netns del", "link add"}
INSIDE = {
    *("link set", "link del", "addr add", "addr del", "route add", "route del", "route replace"),
    *("neigh replace", "neigh flush"),
}


class Refused(Exception):
    """What the kernel said to a command."""


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
    # By namespace and name: what each was told.
    services: dict[tuple[str, str], tuple[str, ...]] = field(factory=dict)

    def copy(self) -> "Kernel":
        return Kernel(
            {name: space.copy() for name, space in self.namespaces.items()},
            *(self.files.copy(), self.made.copy(), self.services.copy()),
        )

    def run(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self.do(command)

    def do(self, command: Command) -> None:
        """Carry the command out. Raises `Refused` unless the command tolerates what there is to say."""
        # Files are those of the lab, and a service may be gone with its namespace.
        if command.ns is not None and not isinstance(command, WriteFile | RemoveFile | EndService):
            assert command.ns in self.namespaces, f"{command} is run before its namespace is made"
        try:
            self._do(command)
        except Refused as refused:
            tolerated = command.tolerate if isinstance(command, Ip | Tc) else ()
            if not any(text in str(refused) for text in tolerated):
                raise Refused(f"{refused}: {command}") from None

    def _do(self, command: Command) -> None:
        match command:
            case WriteFile():
                self.files[command.path] = command.content
            case RemoveFile():
                self.files.pop(command.path, None)
            case Ip():
                self._ip(command.ns, list(command.args))
            case Tc():
                self._tc(self.namespaces[command.ns or ""], list(command.args))
            case Nft():
                self._nft(self.namespaces[command.ns], command.ruleset)
            case SetSysctl():
                self._sysctl(self.namespaces[command.ns], command.name, command.value)
            case CheckQdiscs():
                self._check(self.namespaces[command.ns], command)
            case StartService():
                self._service(command.service)
            case EndService():
                self.services.pop((command.ns, command.service.name), None)
            case _:
                assert_never(command)

    def _sysctl(self, ns: Namespace, name: str, value: str) -> None:
        parts = name.split("/")
        if parts[2] == "conf" and parts[3] not in ("all", "default"):
            _refuse(parts[3] not in ns.links, "No such file or directory")
            assert parts[4] == "disable_ipv6"
            ns.links[parts[3]].ipv6 = value == "0"
        else:
            ns.sysctls[name] = value

    def _ip(self, ns: str | None, words: Words) -> None:
        verb = " ".join(words[:2])
        assert verb in (OUTSIDE if ns is None else INSIDE), f"the fake kernel does not know {words} in {ns}"
        carry_out = getattr(self, f"_{words[0]}_{words[1]}")
        where = () if ns is None else (self.namespaces[ns],)
        carry_out(*where, words[2:])

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
            assert not (here := self._using(there, dev)), f"{dev} in {there} is deleted below {here}"
            del space.links[dev]
            space.routes = {net: route for net, route in space.routes.items() if route[1] != dev}
            space.neighbours = {key: mac for key, mac in space.neighbours.items() if key[0] != dev}
            space.indexes = {index: at for index, at in space.indexes.items() if at != dev}

    def _new_link(self, words: Words) -> tuple[str, str, Link]:
        up = "up" in words
        options = _options(
            [word for word in words if word != "up"],
            *("name", "index", "netns", "address", "arp", "mtu", "master", "numtxqueues", "numrxqueues"),
        )
        name, where = options["name"], options["netns"]
        _refuse(where not in self.namespaces, 'Invalid "netns" value')
        space = self.namespaces[where]
        _refuse(name in space.links or options.get("index") in space.indexes, "File exists")
        _refuse(name in ("all", "default") or len(name.encode()) > 15, "Invalid argument")
        master = space.indexes.get(options["master"].removeprefix("if")) if "master" in options else None
        _refuse("master" in options and master is None, "Invalid argument")
        ipv6 = space.sysctls.get("net/ipv6/conf/default/disable_ipv6", "0") == "0"
        arp = options.get("arp") != "off"
        link = Link("", options["address"], None, master, int(options.get("mtu", 1500)), up, ipv6, arp)
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
        state = words.pop() if words[-1] in ("up", "down") else ""
        options = _options(words, "dev", "master", "mtu", "gso_max_segs")
        link = self._dev(ns, options["dev"])
        if "master" in options:
            bridge = ns.links.get(options["master"])
            assert bridge and bridge.kind == "bridge", f"{words}: Device does not exist"
            assert not link.addresses, f"{words}: a port that is a host too"
            link.master = options["master"]
        link.mtu = int(options.get("mtu", link.mtu))
        link.gso = int(options.get("gso_max_segs", link.gso))
        if state == "down":
            used = link.addresses or any(route[1] == options["dev"] for route in ns.routes.values())
            assert not used, f"{words}: its routes would be lost"
        link.up = state == "up" if state else link.up

    def _link_del(self, ns: Namespace, words: Words) -> None:
        name = _options(words, "dev")["dev"]
        self._dev(ns, name)
        self._drop(next(where for where, space in self.namespaces.items() if space is ns), name)

    # -- what acts on packets

    def _tc(self, ns: Namespace, words: Words) -> None:
        verb, options = words[1], words[2:]
        assert words[0] == "qdisc" and options[0] == "dev"
        qdiscs = self._dev(ns, options[1]).qdiscs
        parent, rest = ("root", options[3:]) if options[2] == "root" else (options[3], options[4:])
        if verb == "replace":
            _refuse(parent != "root" and "root" not in qdiscs, "Failed to find specified qdisc")
            qdiscs[parent] = tuple(rest)
            return
        assert verb == "del" and not rest
        _refuse(parent == "root" and not qdiscs, "Cannot delete qdisc with handle of zero")
        _refuse("root" not in qdiscs, "Failed to find qdisc with specified classid")
        _refuse(parent not in qdiscs, "Cannot find specified qdisc on specified device")
        for gone in list(qdiscs) if parent == "root" else [parent]:
            del qdiscs[gone]

    def _check(self, ns: Namespace, command: CheckQdiscs) -> None:
        for dev, (netem, tbf) in command.wanted.items():
            wanted = {"root": tuple(tc.netem_replace(dev, netem)[5:])}
            if tbf:
                wanted["1:1"] = tuple(tc.tbf_replace(dev, tbf)[6:])
            found = self._dev(ns, dev).qdiscs
            assert found == wanted, f"{dev} in {command.ns}: wanted {wanted}, found {found}"

    def _service(self, service: Service) -> None:
        """A relay: it carries packets between two ports of a bridge that is down."""
        ends = [self._dev(self.namespaces[service.ns], service.args[place]) for place in (1, 3)]
        assert service.args[0::2][:2] == ("--far", "--near") and all(end.master for end in ends)
        self.services[service.ns, service.name] = service.args

    def _using(self, ns: str, dev: str) -> list[str]:
        """The services that have the interface open."""
        return [name for (at, name), args in self.services.items() if at == ns and dev in (args[1], args[3])]

    # -- rules

    def _nft(self, ns: Namespace, text: str) -> None:
        for verb, name, what in read_commands(text):
            _refuse(verb not in ("define", "create") and name not in ns.tables, "No such file or directory")
            if verb == "define":
                # A real one would append the rules to those that are there.
                assert ns.tables.get(name, TextTable()) == TextTable(), f"table {name} is loaded twice"
                assert isinstance(what, TextTable)
                ns.tables[name] = what
            elif verb == "create":
                ns.tables.setdefault(name, TextTable())
            elif verb == "delete":
                del ns.tables[name]
            else:
                ns.tables[name] = self._changed(ns.tables[name], verb, *what)

    def _changed(self, table: TextTable, verb: str, name: str, elements: Elements) -> TextTable:
        """The table with elements added to one of its sets, or removed."""
        _refuse(name not in table.sets, "No such file or directory")
        there = table.elements.get(name, {}).copy()
        for key, value in elements.items():
            if verb == "add":
                _refuse(there.get(key, value) != value, "File exists")
                there[key] = value
            else:
                _refuse(there.get(key) != value, "No such file or directory")
                del there[key]
        others = {each: table.elements[each] for each in table.elements if each != name}
        return evolve(table, elements=others | ({name: there} if there else {}))

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

    def _addr_del(self, ns: Namespace, words: Words) -> None:
        address = ip_interface(words.pop(0))
        addresses = self._dev(ns, _options(words, "dev")["dev"]).addresses
        _refuse(address not in addresses, "Cannot assign requested address")
        addresses.remove(address)
        others = [other.network for other in addresses if other.version == address.version]
        assert others, f"{address} was the last: the routes of its interface would be lost"
        assert address.network not in others, f"others of the network of {address} would be lost"

    def _route(self, words: Words) -> tuple[Any, tuple[Any, str, int | None]]:
        if words[0] == UNREACHABLE:
            return ip_network(words[1]), (None, words[0], None)
        target = words.pop(0)
        options = _options([word for word in words if word != "lock"], "via", "dev", "mtu")
        via = ip_address(options["via"]) if "via" in options else None
        network = ip_network("0.0.0.0/0" if target == "default" else target)
        return network, (via, options["dev"], int(options["mtu"]) if "mtu" in options else None)

    def _route_add(self, ns: Namespace, words: Words) -> None:
        network, route = self._route(words)
        via, dev, _ = route
        if dev == UNREACHABLE:
            _refuse(network in ns.routes, "File exists")
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

    def _route_replace(self, ns: Namespace, words: Words) -> None:
        ns.routes.pop(self._route(list(words))[0], None)
        self._route_add(ns, words)

    def _route_del(self, ns: Namespace, words: Words) -> None:
        network, route = self._route(words)
        if route[1] != UNREACHABLE:
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


def lanes(plan: Plan) -> Sequence[tuple[list[Command], dict[str | None, list[Command]]]]:
    """Of each stage what is made, and what is configured in each namespace."""
    found = []
    for stage in plan.stages:
        configure: dict[str | None, list[Command]] = {}
        for command in stage.configure:
            configure.setdefault(command.ns, []).append(command)
        found.append((list(stage.make), configure))
    return found
