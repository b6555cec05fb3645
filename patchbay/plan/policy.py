"""A router's NAT and firewall: the commands that load them, and those from one policy to another."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Interface, ip_network

from patchbay.layout.layout import WAN, Layout, PolicyLayout, RouteLayout, RouterLayout, of_version
from patchbay.model.firewall import FirewallConfig
from patchbay.model.names import NsName
from patchbay.model.nat import NatConfig, config_of
from patchbay.plan.aspects import GONE
from patchbay.plan.firewall import firewall_table
from patchbay.plan.nat import block_elements, nat_table
from patchbay.plan.nat_traits import CLOSING
from patchbay.plan.plan import Stage
from patchbay.plan.port_mapping import TABLE, ending, mapping_server, mapping_table, serving
from patchbay.tools import ip
from patchbay.tools.commands import Command, Ip, Nft, SetSysctl
from patchbay.tools.nft import Table, dropped, render

__all__ = ["endings", "first_rules", "policy_stages"]

_POOL = "give a port-block NAT one more outside address"

# Those of the kernel, of connections that are neither answered UDP nor established TCP
# (net/netfilter/nf_conntrack_proto_tcp.c).
_TCP_TIMEOUTS = {
    "syn_sent": 120, "syn_recv": 60, "fin_wait": 120, "close_wait": 60, "last_ack": 30, "time_wait": 120,
    "close": 10, "max_retrans": 300, "unacknowledged": 300,
}  # fmt: skip
_KERNELS = {"udp_timeout": 30, "udp_timeout_stream": 120, "tcp_timeout_established": 432000}


def first_rules(router: RouterLayout, policy: PolicyLayout) -> Iterator[Command]:
    """What a router that was just made needs, without its blocks of ports."""
    for table in _tables(router, policy):
        yield _load(router, policy, table)
    yield from _timeouts(router, {}, _wanted_timeouts(router, policy))


def policy_stages(old: Layout | None, new: Layout, added: set[NsName]) -> Iterator[Stage]:
    """What turns the policies of `old` into those of `new`. Routers in `added` have their first rules.

    All rules of a namespace are one transaction of nft: no packet meets half of them.
    """
    commands: list[Command] = []
    for router in new.forwarders.values():
        after = new.policy(router)
        before = old.policy(router) if old and router.ns not in added else None
        if after is not before:
            commands += _between(router, before, after)
    commands += _leftovers(old, new) if old else ()
    yield Stage(configure=tuple(commands), settled=True)


def _leftovers(old: Layout, new: Layout) -> Iterator[Command]:
    """What routers that are gone have left in namespaces that stay."""
    staying = {node.ns for node in new.forwarders.values()}
    for router in old.forwarders.values():
        if router.ns not in staying:
            for way in _pool_ways(router, old.policy(router)):
                if way.ns in staying:
                    yield Ip(way.ns, ip.route_del(way), _POOL, router.ns, GONE)


def endings(old: Layout | None, gone: set[NsName]) -> Iterator[Stage]:
    """The end of the processes of routers whose namespaces are `gone`, before those go."""
    leaving = (router for router in old.forwarders.values() if router.ns in gone) if old else ()
    yield Stage(
        make=tuple(ending(each) for each in leaving if old and mapping_server(each, old.policy(each)))
    )


def _between(router: RouterLayout, before: PolicyLayout | None, after: PolicyLayout) -> Iterator[Command]:
    """`before` None: the first rules are there."""
    yield from _pool(router, before, after)
    was = {table.name: table for table in _tables(router, before)} if before else {}
    tables = {table.name: table for table in _tables(router, after)}
    anew = before is None
    rebooted = before is not None and before.generation != after.generation
    for name in {**was, **tables} if before else {}:
        # The mappings of the table `upnp` are not in these rules.
        if was.get(name) == tables.get(name) and not (rebooted and name == TABLE):
            continue
        anew |= name == "nat"
        # Of a table that is not there too, as undoing does not know how far a change has come.
        why = f"take {_CALLED[name]} of router '{router.name}' away"
        yield Nft(router.ns, dropped(name), why, _owner(router, name), ends=_owner(router, name))
        if name in tables:
            yield _load(router, after, tables[name])
    yield from _blocks(router, None if anew else before, after)
    if before is not None:
        # After the rules, which bring conntrack in.
        yield from _timeouts(router, _wanted_timeouts(router, before), _wanted_timeouts(router, after))
    yield from _server(router, before, after)


def _server(router: RouterLayout, before: PolicyLayout | None, after: PolicyLayout) -> Iterator[Command]:
    """The process that serves the table `upnp`. `before` None: it does not run."""
    was, server = mapping_server(router, before) if before else None, mapping_server(router, after)
    if server is None:
        yield from (ending(router),) if was else ()
    elif before is None or was != server or before.generation != after.generation:
        yield from serving(router, after, server)


def _tables(router: RouterLayout, policy: PolicyLayout) -> list[Table]:
    tables = (nat_table(router, policy), firewall_table(policy), mapping_table(router, policy))
    return [table for table in tables if table]


def _owner(router: RouterLayout, table: str) -> str:
    return f"{router.ns}#{table}"


def _load(router: RouterLayout, policy: PolicyLayout, table: Table) -> Nft:
    title = {"nat": f" {_title(policy.nat)}", "filter": f" {_title(policy.firewall)}"}.get(table.name, "")
    why = f"load {_CALLED[table.name]}{title} of router '{router.name}'"
    return Nft(router.ns, render(table), why, _owner(router, table.name))


_CALLED = {"nat": "NAT", "filter": "firewall", TABLE: "room for port mappings"}


def _title(policy: object) -> str:
    return "of its own kind" if isinstance(policy, NatConfig | FirewallConfig) else f"'{policy}'"


# -- blocks of ports


def _pool(router: RouterLayout, before: PolicyLayout | None, after: PolicyLayout) -> Iterator[Command]:
    """Outside addresses beside the first of the uplink, which answers for them on the LAN above."""
    was = before.pool if before else ()
    ways_before = _pool_ways(router, before) if before else []
    for way in _pool_ways(router, after)[len(ways_before) :]:
        yield Ip(way.ns, ip.route_replace(way), _POOL, router.ns)
    for way in ways_before[len(after.pool) :]:
        yield Ip(way.ns, ip.route_del(way), _POOL, router.ns, GONE)
    for address in after.pool[len(was) :]:
        yield Ip(router.ns, ip.addr_add(IPv4Interface(address), WAN), _POOL, router.ns)
    for address in was[len(after.pool) :]:
        yield Ip(router.ns, ip.addr_del(IPv4Interface(address), WAN), _POOL, router.ns, GONE)


def _pool_ways(router: RouterLayout, policy: PolicyLayout) -> list[RouteLayout]:
    """As for the uplink's first address: where its MTU is its own, the router above has to know it."""
    uplink = router.uplink
    if uplink is None or uplink.mtu is None:
        return []
    lan = uplink.router_lan.bridge
    return [RouteLayout(uplink.router_ns, ip_network(each), lan, None, uplink.mtu) for each in policy.pool]


def _blocks(router: RouterLayout, before: PolicyLayout | None, after: PolicyLayout) -> Iterator[Command]:
    """`before` None: the table is new."""
    there = dict(block_elements(router, before)) if before else {}
    wanted = dict(block_elements(router, after))
    why, owner = f"give hosts below router '{router.name}' ports of their own", _owner(router, "nat")
    for what in sorted(there.keys() - wanted.keys()):
        # An element that is not there cannot be deleted; that it is there is not known when undoing.
        text = _elements("add", there[what]) + _elements("delete", there[what])
        yield Nft(router.ns, text, why, owner, slot=what)
    for what, elements in wanted.items():
        if what not in there:
            yield Nft(router.ns, _elements("add", elements), why, owner, slot=what)


def _elements(verb: str, elements: str) -> str:
    return "".join(f"{verb} element inet nat {line}\n" for line in elements.splitlines())


# -- how long connections last


def _wanted_timeouts(router: RouterLayout, policy: PolicyLayout) -> dict[str, int]:
    """Conntrack's own timeouts in seconds, where they are not the kernel's.

    Where established TCP is short-lived, no other state of it may be longer: it would hold on to a
    port that the NAT has given to somebody else.
    """
    config = config_of(policy.nat)
    if config is None or router.uplink is None or of_version(router.uplink.addresses, 4) is None:
        return {}
    wanted = {
        "udp_timeout": config.udp_timeout,
        "udp_timeout_stream": config.udp_stream_timeout,
        "tcp_timeout_established": config.tcp_established_timeout,
    }
    if config.tcp_established_timeout < CLOSING:
        for state, seconds in _TCP_TIMEOUTS.items():
            wanted[f"tcp_timeout_{state}"] = min(seconds, config.tcp_established_timeout)
    return wanted


def _timeouts(router: RouterLayout, before: dict[str, int], after: dict[str, int]) -> Iterator[Command]:
    kernels = {**_KERNELS, **{f"tcp_timeout_{state}": seconds for state, seconds in _TCP_TIMEOUTS.items()}}
    why = f"set how long mappings of router '{router.name}' last"
    for name in {**before, **after}:
        seconds = after.get(name, kernels[name])
        if before.get(name) != seconds:
            setting = f"net/netfilter/nf_conntrack_{name}"
            yield SetSysctl(router.ns, setting, str(seconds), why, router.ns)
