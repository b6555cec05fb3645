"""A live lab: adds to it, looks things up in it, and tells what was done to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from patchbay.change.base import Change, check_change
from patchbay.change.links import BreakRegionLink, LinkRegions, RestoreRegionLink
from patchbay.change.nodes import Add
from patchbay.config.converter import shared_converter, structure
from patchbay.errors import SpecError
from patchbay.lab.core import Core
from patchbay.lab.given import by_name, iface_table, look_up, name_of
from patchbay.lab.links import DEFAULT_REGIONS, LinkStats
from patchbay.lab.named import Named
from patchbay.lab.node import Node
from patchbay.lab.nodes import Device, Iface, Ix, Region, Router
from patchbay.layout.find import find_region
from patchbay.layout.layout import RouterKind
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
from patchbay.model.link import LinkCondition, RegionLink
from patchbay.model.names import env_names
from patchbay.model.nat import Nat, NatConfig
from patchbay.record.events import LabEvent
from patchbay.record.journal import Record
from patchbay.record.trace import Item, as_json, as_script, commands_of
from patchbay.tools.commands import Command

__all__ = ["Lab"]


class Lab(Named):
    """A live lab. `open_lab` makes it, and leaving the block ends it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        core.lab = self

    def __repr__(self) -> str:
        return f"<Lab {self.label!r}: {len(self.routers)} routers, {len(self.devices)} devices>"

    @property
    def _scope(self) -> None:
        return None

    @property
    def label(self) -> str:
        return self._core.label

    @property
    def prefix(self) -> str:
        """Return the name by which messages and logs tell this lab from others of the process."""
        return self._core.prefix

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
        await self._add(LabSpec(routers=(spec,)))
        return self._core.handle(Router, name)

    async def add_device(
        self,
        name: str,
        *,
        uplink: Router | str | None = None,
        link: LinkCondition | Mapping[str, Any] | str | None = None,
        ifaces: Mapping[str, Iface | Router | str] | None = None,
        default_via: str | None = None,
        mtu: int | None = None,
        private: Sequence[str] = (),
        stun: bool = False,
    ) -> Device:
        """Add a device: `uplink=r, link=c` is short for `ifaces={"eth0": Iface(r, link=c)}`.

        A link's condition `c` is a preset's name such as "wifi", a `LinkCondition`, or a dict of its fields.
        `default_via` names the interface of its default routes (default: the first), `mtu` is that
        of its interfaces in bytes. `private` are folders of this machine, such as "/tmp", that are empty in
        the device and its own. With `stun` the device serves STUN over UDP and TCP at port 3478 of all its
        addresses. Raises as `add_router` does.
        """
        if uplink is not None and ifaces is not None:
            raise TypeError("name either `uplink` or `ifaces`")
        if ifaces is not None and not isinstance(ifaces, Mapping):
            raise TypeError(f"`ifaces` is a dict such as {{'eth0': router}}, not {ifaces!r}")
        if link is not None and uplink is None:
            raise TypeError("`link` needs `uplink`; with `ifaces` it is Iface(router, link=...)")
        given = ifaces if ifaces is not None else {"eth0": Iface(uplink, link)} if uplink is not None else {}
        tables = {iface: iface_table(to) for iface, to in given.items()}
        fields = {
            "name": name,
            "ifaces": tables,
            "default_via": default_via,
            "mtu": mtu,
            "private": private,
            "stun": stun,
        }
        spec = structure(shared_converter(), fields, DeviceSpec)
        await self._add(LabSpec(devices=(spec,)))
        return self._core.handle(Device, name)

    async def add_region(self, name: str) -> Region:
        """Add a region, for routers to be put in. Raises as `add_router` does."""
        spec = structure(shared_converter(), {"name": name}, RegionSpec)
        await self._add(LabSpec(regions=(spec,)))
        return self._core.handle(Region, name)

    async def add_default_regions(self) -> tuple[Region, Region, Region]:
        """Add the regions "us", "eu" and "asia", 40 (us-eu), 80 (us-asia) and 120 ms apart, one way."""
        names = ("us", "eu", "asia")
        links = tuple(RegionLinkSpec(a, b, RegionLink.good(ms)) for (a, b), ms in DEFAULT_REGIONS.items())
        await self._add(LabSpec(regions=tuple(map(RegionSpec, names)), region_links=links))
        us, eu, asia = (self._core.handle(Region, name) for name in names)
        return us, eu, asia

    async def link_regions(
        self, a: Region | str, b: Region | str, link: LinkCondition | Mapping[str, Any] | str | float
    ) -> None:
        """Lead packets between two regions over a link of their own instead of the exchange.

        `link` is a `RegionLink`, what else a link's condition can be, or its latency in ms, one way; its `up`
        is from `a` to `b`. For two that are linked already, a number or a `RegionLink` is the whole condition
        from then on; of others, what `link` does not say stays.
        """
        condition = structure(shared_converter(), link, RegionLink)
        whole = isinstance(link, int | float | RegionLink)
        await self._core.apply(
            LinkRegions(_name(a), _name(b), condition.with_all_set() if whole else condition)
        )

    async def break_region_link(self, a: Region | str, b: Region | str) -> None:
        """Cut the link of two regions. Packets on the link are lost, and no packet takes another way."""
        await self._core.apply(BreakRegionLink(_name(a), _name(b)))

    async def restore_region_link(self, a: Region | str, b: Region | str) -> None:
        """Mend what `break_region_link` cut."""
        await self._core.apply(RestoreRegionLink(_name(a), _name(b)))

    async def region_link_stats(self, a: Region | str, b: Region | str) -> LinkStats:
        """Return what each direction of two regions' link has done; `up` leaves the region linked first."""
        self._core.check_open()
        layout = self._core.visible
        names = [find_region(layout, _name(each)).name for each in (a, b)]
        return await self._core.links.stats(region_key(layout, *names))

    async def apply(self, change: Change) -> None:
        """Apply a change of `patchbay.change`, as the verbs of the handles do.

        Sims, schedules of faults and other programs have changes as values, or as tables that
        `patchbay.change.codec.from_table` reads. Raises what the verbs raise; then the lab is as it was.
        """
        check_change(change)
        await self._core.apply(change)

    @contextlib.asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """Apply all changes of this block together, in one plan, when the block is left.

        Handles have their addresses at once; using one for more raises `StaleHandleError` until then. If
        the block or the plan fails, nothing of it is there, and its handles are stale. The batch
        belongs to the task that opened it: other tasks' changes wait for its end.
        """
        async with self._core.batch():
            yield

    async def _add(self, spec: LabSpec) -> None:
        try:
            await self._core.apply(Add(spec))
        except SpecError as error:
            raise SpecError([by_name(problem, spec) for problem in error.problems]) from None

    # -- look-ups

    def device(self, name: str) -> Device:
        """Return the device of that name. Raises `KeyError` with close matches."""
        return look_up(name, "device", self.devices)

    def router(self, name: str) -> Router:
        """Return the router of that name. Raises `KeyError` with close matches."""
        return look_up(name, "router", self.routers)

    def region(self, name: str) -> Region:
        """Return the region of that name. Raises `KeyError` with close matches."""
        return look_up(name, "region", self.regions)

    def node(self, name: str) -> Node:
        """Return the device or router of that name, or the exchange ("ix"). Raises `KeyError`."""
        return look_up(name, "node", (*self.devices, *self.routers, self.ix))

    @property
    def devices(self) -> tuple[Device, ...]:
        return tuple(self._core.handle(Device, name) for name in self._core.visible.devices)

    @property
    def routers(self) -> tuple[Router, ...]:
        return tuple(self._core.handle(Router, name) for name in self._names_of(RouterKind.ROUTER))

    @property
    def regions(self) -> tuple[Region, ...]:
        return tuple(self._core.handle(Region, name) for name in self._names_of(RouterKind.REGION))

    def _names_of(self, kind: RouterKind) -> Iterator[str]:
        forwarders = self._core.visible.forwarders.values()
        return (forwarder.name for forwarder in forwarders if forwarder.kind is kind)

    @property
    def ix(self) -> Ix:
        """Return the exchange."""
        return self._core.handle(Ix, "ix")

    # -- what was done

    def events(self) -> AsyncIterator[LabEvent]:
        """Iterate over every event of the lab, from the first on, until the lab ends."""
        return self._core.recorder.events.follow()

    def state(self) -> dict[str, Any]:
        """Return a snapshot as plain values: label, status, exchange, routers, regions, devices, names."""
        return deepcopy(self._core.recorder.state)

    @property
    def commands(self) -> tuple[Record, ...]:
        """Return the journal so far: every command that was tried, in order."""
        return self._core.recorder.journal.records()

    @property
    def plan(self) -> tuple[Command, ...]:
        """Return the commands that make the present lab. In a lab that never changed they were applied."""
        return commands_of(self._core.changes.applied)

    def trace(self, format: str = "sh", *, everything: bool = False) -> str:
        """Return the lab as a script that rebuilds it without patchbay ("sh"), or its commands ("json").

        These are the commands that make the lab what it is now; with `everything`, all that were run so far,
        in order.
        """
        items: Sequence[Item] = self.commands if everything else self.plan
        if format == "json":
            return as_json(items)
        if format == "sh":
            return as_script(items, f"patchbay lab '{self.label}'")
        raise ValueError(f"unknown format {format!r}; accepted: 'sh', 'json'")

    def env_vars(self) -> dict[str, str]:
        """Return the addresses of devices as variables for programs.

        `PATCHBAY_IP_<DEVICE>` and `PATCHBAY_IP6_<DEVICE>` are the addresses by which others know a device,
        `PATCHBAY_IP_<DEVICE>_<IFACE>` and `PATCHBAY_IP6_<DEVICE>_<IFACE>` those of an interface. The IPv4
        ones are there as `NETSIM_IP_…` too, for older sims.
        """
        variables: dict[str, str] = {}
        for device in self.devices:
            for name, iface in env_names(device.name, (iface.name for iface in device.ifaces)):
                place = device.iface(iface) if iface else device
                named = {"PATCHBAY_IP": place.ip, "PATCHBAY_IP6": place.ip6, "NETSIM_IP": place.ip}
                variables |= {f"{prefix}_{name}": str(ip) for prefix, ip in named.items() if ip}
        return variables

    @property
    def run_dir(self) -> Path | None:
        """Return the folder of the run, or None if the lab writes no files."""
        folder = self._core.recorder.folder
        return folder.path if folder else None


def _name(region: Region | str) -> str:
    return region if isinstance(region, str) else region.name
