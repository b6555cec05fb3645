"""The server of UPnP IGD, NAT-PMP and PCP on a router: miniupnpd's configuration, table and process.

Debian's package is `miniupnpd-nftables`; measured with 2.3.1. Sources that reasons are taken from are
files of miniupnpd 2.3.1, `miniupnpd.conf` and miniupnpd(8).
"""

from __future__ import annotations

import uuid

from attrs import frozen

from patchbay.layout.layout import PolicyLayout, RouterLayout, of_version
from patchbay.model.names import NsName
from patchbay.model.nat import config_of
from patchbay.plan.resources import Phase, Resource, Resources
from patchbay.tools.commands import EndService, StartService, WriteFile
from patchbay.tools.nft import Chain, Hook, Table
from patchbay.tools.service import Service

__all__ = [
    "HTTP_PORT",
    "PINHOLE_RULE",
    "TABLE",
    "MappingServer",
    "configuration",
    "mapper_name",
    "mapping_server",
    "mapping_table",
    "serving",
]

TABLE = "upnp"
_MAPPINGS, _PINHOLES, _PEERS = "mappings", "pinholes", "peers"

_MAPPER = "patchbay.services.port_mapper"

# SSDP's number, over TCP, as TP-Link's routers do: fixed, so that a run can be repeated, and below the
# ports that the kernel gives out (ip_local_port_range), so that it is free.
HTTP_PORT = 1900

# One bit of the packet mark says "a pinhole let it in" to the firewall, for no verdict of one table
# can overrule a drop of another: nft(8), "accept ... packets can still be dropped by later base chains".
_MARK = 0x10000000
PINHOLE_RULE = f"meta mark & {_MARK:#x} == {_MARK:#x} accept"


@frozen
class MappingServer:
    """The server of one router. `name` is that of its namespace, which is safe in a file.

    `pinholes`: whether inside hosts may also open their IPv6 ports (IGD:2 WANIPv6FirewallControl, PCP);
    the firewall has to have `PINHOLE_RULE` then.
    """

    name: NsName
    pinholes: bool = False


def mapping_server(router: RouterLayout, policy: PolicyLayout) -> MappingServer | None:
    """Return the router's server of port mappings, or None. Without a NAT there is none."""
    uplink = router.uplink
    outside = of_version(uplink.addresses, 4) if uplink else None
    if uplink is None or outside is None or not policy.port_mapping or config_of(policy.nat) is None:
        return None
    pinholes = of_version(uplink.addresses, 6) is not None
    return MappingServer(router.ns, pinholes)


# -- its configuration


def configuration(server: MappingServer) -> str:
    """Return the text of its file. miniupnpd ends at an option that it does not know (options.c)."""
    options = {
        # It grants nothing while that has a reserved address (getifaddr.c, `reserved`).
        "ext_ifname": "wan",
        # By name: with an address instead there would be no IPv6, and 2.3 refuses it (parselanaddr).
        "listening_ip": "lan",
        "http_port": str(HTTP_PORT),
        **_names(server),
        "upnp_table_name": TABLE,
        "upnp_nat_table_name": TABLE,
        "upnp_nat_chain": _MAPPINGS,
        "upnp_forward_chain": _PINHOLES,
        "upnp_nat_postrouting_chain": _PEERS,
        "ipv6_disable": "no" if server.pinholes else "yes",
        # A host maps ports to itself alone (RFC 6886 and 6887 have it so; OpenWrt's default for UPnP).
        "secure_mode": "yes",
        # The time since the router's start is the server's own, and so is PCP's epoch: a client learns from
        # it that its mappings are lost (RFC 6887 section 8.5).
        "system_uptime": "no",
        # Announcements are 13 packets to each host; a host that does not want to wait asks (M-SEARCH).
        "notify_interval": "900",
    }
    # Without `lease_file`: a reboot forgets all mappings, as OpenWrt's does, whose file is on a tmpfs.
    lines = [f"{name}={value}" for name, value in options.items()]
    # OpenWrt's rules (upnpd.config). The first that matches counts (upnppermissions.c).
    lines += ["allow 1024-65535 0.0.0.0/0 1024-65535", "deny 0-65535 0.0.0.0/0 0-65535"]
    return "\n".join([*lines, ""])


def _names(server: MappingServer) -> dict[str, str]:
    # Clients know a gateway again by its uuid: of one router the same in each run, of two not the same.
    name = f"{server.name}.patchbay"
    return {"uuid": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)), "friendly_name": server.name}


# -- its table


def mapping_table(router: RouterLayout, policy: PolicyLayout) -> Table | None:
    """Return its chains, which have to exist first, because it makes none since 2.3 (Changelog.txt).

    In a table of its own, family `inet` (nftnlrdr.c knows no other), so that its mappings outlive a change
    of the firewall. Each mapping is two rules: a dnat for what comes in by `wan`, and an accept.
    """
    server = mapping_server(router, policy)
    if server is None:
        return None
    chains = (
        # Before the NAT's own dstnat chain: the first to translate a connection wins (nf_nat_inet_fn), and
        # what a host has asked for comes before what its packets have made the NAT learn.
        Chain(_MAPPINGS, (), Hook("nat", "prerouting", "dstnat - 1")),
        # Not hooked: the NAT and the firewall let in by themselves what was dnatted. Without the
        # chain each mapping would be refused (upnp_redirect_internal).
        Chain(_PINHOLES, ()),
        # Not hooked: the rules for PCP's PEER match the answers' direction (rule_set_snat), so do nothing.
        Chain(_PEERS, ()),
    )
    return Table(TABLE, (*chains, _marking()) if server.pinholes else chains)


def _marking() -> Chain:
    # An accept among the pinholes ends this chain here, with the mark still set.
    new = 'iifname "wan" meta nfproto ipv6 ct state new'
    rules = (
        f"{new} meta mark set meta mark | {_MARK:#x} jump {_PINHOLES}",
        f"{new} meta mark set meta mark & {0xFFFFFFFF ^ _MARK:#x}",
    )
    return Chain("forward", rules, Hook("filter", "forward", "filter - 1"))


# -- its process


def serving(router: RouterLayout, policy: PolicyLayout, server: MappingServer) -> Resources:
    """Return its configuration and its process, which forgets all mappings with each generation.

    The process needs the table, so it is started after the rules were loaded.
    """
    why, owner, file = f"serve port mappings on router '{router.name}'", _owner(router), _file(router)
    end, inside = f"end the port mappings of router '{router.name}'", ("netns", router.ns)
    yield (
        ("file", file),
        Resource(
            (WriteFile(file, configuration(server), why=why, owner=owner, ns=router.ns),),
            # Left when the server ends: the next one waits for the end of this one by a lock on the file.
            phase=Phase.RULES,
        ),
    )
    args = ("--config", file, "--generation", str(policy.generation))
    name = mapper_name(router)
    title = f"the server of port mappings on router '{router.name}'"
    mapper = Service(
        router.ns, name, _MAPPER, args, kind="port-mapper", key=("router", router.name), title=title
    )
    yield (
        ("service", router.ns, name),
        Resource(
            (StartService(mapper, why=why, owner=owner),),
            (EndService(mapper, why=end, owner=owner),),
            Phase.RULES,
            within=(inside,),
            process=True,
            identity=(args, configuration(server)),
        ),
    )


def mapper_name(router: RouterLayout) -> str:
    """Return the name of the router's server."""
    return f"{_MAPPER} --config {_file(router)}"


def _owner(router: RouterLayout) -> str:
    return f"{router.ns}#{TABLE}"


def _file(router: RouterLayout) -> str:
    return f"/run/patchbay/{router.ns}/miniupnpd.conf"
