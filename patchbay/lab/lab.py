"""A live lab: adds to it, looks things up in it, and tells what was done to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Any, TypeVar

from patchbay.config.converter import shared_converter, structure
from patchbay.errors import LabBrokenError, LabClosedError, PatchbayError, Problem, SpecError, did_you_mean
from patchbay.lab.changes import Changes
from patchbay.lab.links import DEFAULT_REGIONS, Links, LinkStats
from patchbay.lab.node import Node
from patchbay.lab.nodes import Device, Iface, Ix, Region, Router
from patchbay.lab.port_mappings import PortMappings
from patchbay.lab.session import Session
from patchbay.lab.wished import by_name, iface_table, look_up, name_of
from patchbay.layout.layout import Address, DeviceLayout, Names, NodeLayout, RouterKind
from patchbay.layout.wires import region_key
from patchbay.model.firewall import Firewall, FirewallConfig
from patchbay.model.lab import (
    DeviceSpec,
    IpSupport,
    LabSpec,
    NatV6,
    RegionLinkSpec,
    RegionSpec,
    RouterSpec,
)
from patchbay.model.link import Emulator, LinkCondition, RegionLink
from patchbay.model.names import NsName, env_name
from patchbay.model.nat import Nat, NatConfig
from patchbay.plan.hosts import FILES, own_file
from patchbay.record.events import LabEvent, snapshot
from patchbay.record.journal import Record
from patchbay.record.recorder import Recorder
from patchbay.record.trace import as_json, as_script, select
from patchbay.sandbox.worker import Worker

__all__ = ["Lab"]

NodeT = TypeVar("NodeT", bound=Node)


class Lab:
    """A lab that is there. `open_lab` makes it; leaving its block ends it."""

    def __init__(
        self, session: Session, recorder: Recorder, *, label: str, prefix: str, emulator: Emulator
    ) -> None:
        self.label = label
        # Tells this lab from the others of this process, in messages and logs.
        self.prefix = prefix
        self._session = session
        self._recorder = recorder
        self._changes: Changes[Node] = Changes(
            session.sandbox, session.helpers, recorder, emulator, partial(_handle, self), self._settle
        )
        self._links = Links(self._changes, session, recorder.event)
        self._port_mappings = PortMappings(self._changes, recorder.event)
        session.helpers.died = self._helper_died
        self._nodes: dict[str, Node] = {}
        self._regions: dict[str, Region] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<Lab {self.label!r}: {len(self.routers)} routers, {len(self.devices)} devices>"

    # -- adding

    async def add_router(
        self,
        name: str,
        *,
        preset: str | None = None,
        upstream: Router | str | None = None,
        region: Region | str | None = None,
        nat: Nat | NatConfig | Mapping[str, Any] | str | None = None,
        nat_v6: NatV6 | str | None = None,
        firewall: Firewall | FirewallConfig | Mapping[str, Any] | str | None = None,
        ip_support: IpSupport | str | None = None,
        mtu: int | None = None,
        downstream_cidr: Any = None,
        downstream_cidr_v6: Any = None,
        downlink: LinkCondition | Mapping[str, Any] | str | None = None,
        block_icmp_frag_needed: bool = False,
        port_mapping: bool = False,
    ) -> Router:
        """Add a router; what is named overrides the preset.

        Without a preset: no NAT, no firewall, a public pool, and `v4-only`, so that no IPv6 path
        goes round a NAT under test. `upstream` is the router above it (default: the exchange, or
        its region's). `nat` and `firewall` are names of presets, `NatConfig` and `FirewallConfig`, or
        dicts of their fields. `mtu` is that of its uplink, in bytes; `downlink` the condition between it
        and all that is below it. With `block_icmp_frag_needed` it keeps back what says that a packet was too
        large: a path MTU black hole (RFC 2923). With `port_mapping` hosts below it get ports of its NAT by
        UPnP IGD, NAT-PMP and PCP, and open IPv6 ports in its firewall; this takes a NAT, and miniupnpd.
        Raises `SpecError`, `AllocationError`, `CommandFailed`; after each of them the lab is as it was.
        """
        fields = {
            "name": name,
            "preset": preset,
            "upstream": name_of(upstream),
            "region": name_of(region),
            "nat": nat,
            "nat_v6": nat_v6,
            "firewall": firewall,
            "ip_support": ip_support,
            "mtu": mtu,
            "downstream_cidr": downstream_cidr,
            "downstream_cidr_v6": downstream_cidr_v6,
            "downlink": downlink,
            "block_icmp_frag_needed": block_icmp_frag_needed,
            "port_mapping": port_mapping,
        }
        spec = structure(shared_converter(), fields, RouterSpec)
        (node,) = await self._add(LabSpec(routers=(spec,)))
        return _as(Router, node)

    async def add_device(
        self,
        name: str,
        *,
        uplink: Router | str | None = None,
        link: LinkCondition | Mapping[str, Any] | str | None = None,
        ifaces: Mapping[str, Iface | Router | str] | None = None,
        default_via: str | None = None,
        mtu: int | None = None,
    ) -> Device:
        """Add a device: `uplink=r, link=c` is short for `ifaces={"eth0": Iface(r, link=c)}`.

        A link's condition `c` is a preset's name such as "wifi", a `LinkCondition`, or a dict of its fields.
        `default_via` names the interface of its default routes (default: the first), `mtu` is that
        of its interfaces in bytes. Raises as `add_router` does.
        """
        if uplink is not None and ifaces is not None:
            raise TypeError("name either `uplink` or `ifaces`")
        if link is not None and uplink is None:
            raise TypeError("`link` goes with `uplink`; with `ifaces` it is Iface(router, link=...)")
        wished = ifaces if ifaces is not None else {"eth0": Iface(uplink, link)} if uplink is not None else {}
        tables = {iface: iface_table(to) for iface, to in wished.items()}
        fields = {"name": name, "ifaces": tables, "default_via": default_via, "mtu": mtu}
        spec = structure(shared_converter(), fields, DeviceSpec)
        (node,) = await self._add(LabSpec(devices=(spec,)))
        return _as(Device, node)

    async def add_region(self, name: str) -> Region:
        """Add a region, for routers to be put in. Raises as `add_router` does."""
        (node,) = await self._add(LabSpec(regions=(RegionSpec(name),)))
        return _as(Region, node)

    async def add_default_regions(self) -> tuple[Region, Region, Region]:
        """Add the regions "us", "eu" and "asia", 40 (us-eu), 80 (us-asia) and 120 ms apart, one way."""
        names = ("us", "eu", "asia")
        links = tuple(RegionLinkSpec(a, b, RegionLink.good(ms)) for (a, b), ms in DEFAULT_REGIONS.items())
        nodes = await self._add(LabSpec(regions=tuple(map(RegionSpec, names)), region_links=links))
        us, eu, asia = (_as(Region, node) for node in nodes)
        return us, eu, asia

    async def link_regions(
        self, a: Region | str, b: Region | str, link: LinkCondition | Mapping[str, Any] | str | float
    ) -> None:
        """Lead packets between two regions over a link of their own instead of the exchange.

        `link` is a `RegionLink`, what else a link's condition can be, or its latency in ms, one way; its `up`
        is from `a` to `b`. For two that are linked already, a number or a `RegionLink` is the whole condition
        from then on; of others, what `link` does not say stays.
        """
        self._check_open()
        await self._links.link_regions(self._region_name(a), self._region_name(b), link)

    async def break_region_link(self, a: Region | str, b: Region | str) -> None:
        """Cut the link of two regions: what is under way is lost, and nothing goes another way."""
        self._check_open()
        await self._links.break_regions(self._region_name(a), self._region_name(b), broken=True)

    async def restore_region_link(self, a: Region | str, b: Region | str) -> None:
        """Mend what `break_region_link` cut."""
        self._check_open()
        await self._links.break_regions(self._region_name(a), self._region_name(b), broken=False)

    async def region_link_stats(self, a: Region | str, b: Region | str) -> LinkStats:
        """What each direction of the link of two regions has done; `up` is from the one linked first."""
        self._check_open()
        key = region_key(self._changes.present, self._region_name(a), self._region_name(b))
        return await self._links.stats(key)

    def _region_name(self, region: Region | str) -> str:
        """Of a region that there is. Raises `SpecError`."""
        name = region if isinstance(region, str) else region.name
        known = [f.name for f in self._changes.present.forwarders.values() if f.kind is RouterKind.REGION]
        if name not in known:
            raise SpecError([Problem("region", f"unknown region '{name}'{did_you_mean(name, known)}")])
        return name

    @contextlib.asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """Everything added in this block is applied together, in one plan, when it is left.

        Handles have their addresses at once; using one for more raises `StaleHandleError` until then. If
        the block or the plan fails, nothing of it is there, and its handles stay stale. The batch
        belongs to the task that opened it: other tasks' changes wait for its end.
        """
        self._check_open()
        async with self._changes.batch():
            yield

    async def _add(self, spec: LabSpec) -> list[Node]:
        self._check_open()
        try:
            return await self._changes.add(spec)
        except SpecError as error:
            raise SpecError([by_name(problem, spec) for problem in error.problems]) from None

    def _settle(self, handles: Iterable[Node], there: bool) -> None:
        """From here on these handles are good, or will never be."""
        for handle in handles:
            handle._state = "live" if there else "gone"
            if there and isinstance(handle, Region):
                self._regions[handle.name] = handle
            elif there:
                self._nodes[handle.name] = handle

    # -- look-ups

    def device(self, name: str) -> Device:
        """The device of that name; `KeyError` with close matches."""
        return look_up(name, "device", {n.name: n for n in self.devices})

    def router(self, name: str) -> Router:
        """The router of that name; `KeyError` with close matches."""
        return look_up(name, "router", {n.name: n for n in self.routers})

    def region(self, name: str) -> Region:
        """The region of that name; `KeyError` with close matches."""
        return look_up(name, "region", self._regions)

    def node(self, name: str) -> Node:
        """The device or router of that name, or the exchange ("ix"); `KeyError` with close matches."""
        return look_up(name, "node", self._nodes)

    @property
    def devices(self) -> tuple[Device, ...]:
        return tuple(node for node in self._nodes.values() if isinstance(node, Device))

    @property
    def routers(self) -> tuple[Router, ...]:
        return tuple(node for node in self._nodes.values() if isinstance(node, Router))

    @property
    def regions(self) -> tuple[Region, ...]:
        return tuple(self._regions.values())

    @property
    def ix(self) -> Ix:
        """The exchange."""
        return _as(Ix, self._nodes["ix"])

    # -- names

    def dns_entry(self, name: str, ip: str | Address) -> None:
        """Let `name` stand for `ip` in every node: for its processes, and inside `enter()`."""
        self._set_name(None, name, ip_address(str(ip)))

    def resolve(self, name: str) -> Address | None:
        """What `name` stands for in the whole lab by `dns_entry`; None if nothing."""
        return self._changes.names.resolve("", name)

    def set_nameserver(self, ip: str | Address) -> None:
        """The name server that every node's processes ask (`/etc/resolv.conf`)."""
        self._set_nameserver(None, ip_address(str(ip)))

    def _set_name(self, node: Node | None, name: str, address: Address) -> None:
        if not name or not name.isprintable() or any(c.isspace() or c == "#" for c in name):
            raise ValueError(f"{name!r} cannot stand in a hosts file; accepted: a host name")
        scope = node.name if node else ""
        self._change_names(self._changes.names.with_host(scope, name, address), node)
        self._event("dns_entry_added", scope=scope, name=name, ip=str(address))

    def _set_nameserver(self, node: Node | None, address: Address) -> None:
        self._change_names(self._changes.names.with_nameserver(node.name if node else "", address), node)

    def _change_names(self, new: Names, node: Node | None) -> None:
        self._check_open()
        first = node is not None and node.name not in self._changes.names.scopes()
        self._changes.set_names(new, {scope: NsName(self._nodes[scope].ns) for scope in new.scopes()})
        if node is not None and first and self._session.has_worker(node.ns):
            self._worker_of(node).channel.request_now({"bind": self._binds(node)})

    def _binds(self, node: Node) -> list[list[str]]:
        """What a node with names of its own sees in /etc instead of the lab's."""
        if node.name not in self._changes.names.scopes():
            return []
        return [[own_file(name, node.ns), f"/etc/{name}"] for name in FILES]

    # -- what was done

    def events(self) -> AsyncIterator[LabEvent]:
        """Every event of the lab, from the first on; ends with the lab."""
        return self._recorder.events.follow()

    def state(self) -> dict[str, Any]:
        """A snapshot: routers, regions, devices and names, as plain values."""
        return snapshot(self._changes.standing, self._changes.names)

    @property
    def commands(self) -> tuple[Record, ...]:
        """The journal so far: every command that was tried, in order."""
        return self._recorder.journal.records()

    def trace(self, format: str = "sh", *, everything: bool = False) -> str:
        """The lab as a shell script that rebuilds it by hand ("sh"), or its commands ("json").

        What was undone or replaced is left out, unless `everything` is asked for.
        """
        chosen = select(self.commands, everything=everything)
        if format == "json":
            return as_json(chosen)
        if format == "sh":
            return as_script(chosen, f"patchbay lab '{self.label}'")
        raise ValueError(f"unknown format {format!r}; accepted: 'sh', 'json'")

    def env_vars(self) -> dict[str, str]:
        """`PATCHBAY_IP_<NAME>`, `PATCHBAY_IP6_<NAME>`, and `NETSIM_IP_<NAME>` for older sims."""
        variables = {}
        for device in self.devices:
            name = env_name(device.name)
            for prefix, address in (
                ("PATCHBAY_IP", device.ip),
                ("PATCHBAY_IP6", device.ip6),
                ("NETSIM_IP", device.ip),
            ):
                if address is not None:
                    variables[f"{prefix}_{name}"] = str(address)
        return variables

    @property
    def run_dir(self) -> Path | None:
        """The folder of the run, None where none is written."""
        return self._recorder.folder.path if self._recorder.folder else None

    # -- for handles

    def _event(self, kind: str, **fields: Any) -> None:
        self._recorder.event(kind, **fields)

    def _helper_died(self, ns: str, name: str, words: str) -> None:
        for those in (self._links, self._port_mappings):
            those.helper_died(ns, name, words)

    def _check_open(self) -> None:
        if self._closed:
            raise LabClosedError("the lab is closed: it lives as long as its `async with` block")
        if self._session.died:
            raise self._session.died
        if self._changes.broken:
            raise LabBrokenError(f"lab '{self.label}' is broken: a failed change could not be undone")

    def _worker_of(self, node: Node) -> Worker:
        return self._session.worker(node.ns, self._binds(node))

    def _node_file(self, node: str, name: str) -> Path:
        if self._recorder.folder is None:
            raise PatchbayError(
                "this lab writes no files: give open_lab an `outdir`, or set $PATCHBAY_OUTDIR"
            )
        return self._recorder.folder.node_file(node, name)

    def _output_logs(self, node: str) -> Sequence[IO[bytes] | None]:
        """Open logs for a command's stdout and stderr, where the lab writes files."""
        if self._recorder.folder is None:
            return (None, None)
        return [self._node_file(node, f"{name}.log").open("ab", buffering=0) for name in ("stdout", "stderr")]


def _handle(lab: Lab, layout: NodeLayout) -> Node:
    if isinstance(layout, DeviceLayout):
        return Device(lab, layout)
    kinds: dict[RouterKind, type[Node]] = {
        RouterKind.IX: Ix,
        RouterKind.REGION: Region,
        RouterKind.ROUTER: Router,
    }
    return kinds[layout.kind](lab, layout)


def _as(kind: type[NodeT], node: Node) -> NodeT:
    assert isinstance(node, kind)
    return node
