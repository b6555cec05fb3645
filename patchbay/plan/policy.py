"""The kernel resources of a router's policy: rules, outside addresses, timeouts, its port mapper."""

from __future__ import annotations

from ipaddress import IPv4Interface, ip_network

from patchbay.layout.layout import WAN, PolicyLayout, RouteLayout, RouterLayout, of_version
from patchbay.model.firewall import FirewallConfig
from patchbay.model.nat import NatConfig, config_of
from patchbay.plan.firewall import firewall_table
from patchbay.plan.nat import block_elements, nat_table
from patchbay.plan.nat_traits import CLOSING
from patchbay.plan.parts import address_resource, route_resource
from patchbay.plan.port_mapping import TABLE, mapping_server, mapping_table, serving
from patchbay.plan.resources import Key, Phase, Resource, Resources
from patchbay.tools.commands import Nft, SetSysctl
from patchbay.tools.nft import Table, dropped, render

__all__ = ["policy_resources"]

_POOL = "give a port-block NAT one more outside address"

# Those of the kernel, of connections that are neither answered UDP nor established TCP
# (net/netfilter/nf_conntrack_proto_tcp.c).
_TCP_TIMEOUTS = {
    "syn_sent": 120, "syn_recv": 60, "fin_wait": 120, "close_wait": 60, "last_ack": 30, "time_wait": 120,
    "close": 10, "max_retrans": 300, "unacknowledged": 300,
}  # fmt: skip
_KERNELS = {
    "udp_timeout": 30,
    "udp_timeout_stream": 120,
    "tcp_timeout_established": 432000,
    **{f"tcp_timeout_{state}": seconds for state, seconds in _TCP_TIMEOUTS.items()},
}


def policy_resources(router: RouterLayout, policy: PolicyLayout) -> Resources:
    """Return the resources that decide what a router does to packets.

    All rules of a namespace that change are one transaction of nft, so that no packet meets half of them.
    """
    yield from _pool(router, policy)
    for table in _tables(router, policy):
        yield _table(router, policy, table)
    yield from _blocks(router, policy)
    # After the rules, which bring conntrack in.
    yield from _timeouts(router, policy)
    if server := mapping_server(router, policy):
        yield from serving(router, policy, server)


def _tables(router: RouterLayout, policy: PolicyLayout) -> list[Table]:
    tables = (nat_table(router, policy), firewall_table(policy), mapping_table(router, policy))
    return [table for table in tables if table]


def _owner(router: RouterLayout, table: str) -> str:
    return f"{router.ns}#{table}"


def _table(router: RouterLayout, policy: PolicyLayout, table: Table) -> tuple[Key, Resource]:
    title = {"nat": f" {_title(policy.nat)}", "filter": f" {_title(policy.firewall)}"}.get(table.name, "")
    called, owner = _CALLED[table.name], _owner(router, table.name)
    load = Nft(router.ns, render(table), why=f"load {called}{title} of router '{router.name}'", owner=owner)
    drop = Nft(
        router.ns, dropped(table.name), why=f"take {called} of router '{router.name}' away", owner=owner
    )
    return ("nft", router.ns, table.name), Resource(
        (load,),
        (drop,),
        Phase.RULES,
        within=(("netns", router.ns),),
        # Also of a table that is not there, as undoing does not know how far a change has come.
        again=(drop, load),
        # The mappings of the table `upnp` are not in its rules, and a reboot forgets them.
        identity=(load, policy.generation if table.name == TABLE else 0),
    )


_CALLED = {"nat": "NAT", "filter": "firewall", TABLE: "room for port mappings"}


def _title(policy: object) -> str:
    return "of its own kind" if isinstance(policy, NatConfig | FirewallConfig) else f"'{policy}'"


# -- blocks of ports


def _pool(router: RouterLayout, policy: PolicyLayout) -> Resources:
    """Outside addresses beside the first of the uplink, which answers for them on the LAN above.

    As for the first address: where the uplink's MTU is its own, the router above has to know it.
    """
    uplink = router.uplink
    for address in policy.pool if uplink else ():
        yield address_resource(router.ns, IPv4Interface(address), WAN, _POOL, router.ns, Phase.RULES)
        if uplink and uplink.mtu is not None:
            lan = uplink.router_lan.bridge
            way = RouteLayout(uplink.router_ns, ip_network(address), lan, None, uplink.mtu)
            yield route_resource(way, _POOL, router.ns, ("netns", way.ns), Phase.RULES)


def _blocks(router: RouterLayout, policy: PolicyLayout) -> Resources:
    why, owner = f"give hosts below router '{router.name}' ports of their own", _owner(router, "nat")
    for what, elements in block_elements(router, policy):
        add, delete = (_elements(verb, elements) for verb in ("add", "delete"))
        yield (
            ("element", router.ns, what),
            Resource(
                (Nft(router.ns, add, why=why, owner=owner),),
                # An element that is not there cannot be deleted; that it is there is not known when undoing.
                (Nft(router.ns, add + delete, why=why, owner=owner),),
                Phase.RULES,
                within=(("nft", router.ns, "nat"),),
                fixed=True,
            ),
        )


def _elements(verb: str, elements: str) -> str:
    return "".join(f"{verb} element inet nat {line}\n" for line in elements.splitlines())


# -- how long connections last


def _timeouts(router: RouterLayout, policy: PolicyLayout) -> Resources:
    why = f"set how long mappings of router '{router.name}' last"
    for name, seconds in _wanted_timeouts(router, policy).items():
        setting = f"net/netfilter/nf_conntrack_{name}"
        wanted, usual = (
            SetSysctl(router.ns, setting, str(value), why=why, owner=router.ns)
            for value in (seconds, _KERNELS[name])
        )
        yield (
            ("sysctl", router.ns, setting),
            Resource((wanted,), (usual,), Phase.RULES, within=(("netns", router.ns),)),
        )


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
