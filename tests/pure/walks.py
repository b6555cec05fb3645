"""Random walks: changes of every kind, one after another, each possible where it is made."""

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from random import Random

from patchbay.change.base import Change
from patchbay.change.links import (
    BreakRegionLink,
    LinkRegions,
    RestoreRegionLink,
    SetDownlinkCondition,
    SetLinkCondition,
)
from patchbay.change.names import AddName, RemoveName, SetNameserver
from patchbay.change.nodes import Add, RemoveDevice, RemoveRouter
from patchbay.change.policies import FlushNat, SetFirewall, SetNat
from patchbay.errors import SpecError
from patchbay.layout.layout import Layout, RouterKind
from patchbay.model.lab import DeviceSpec, IfaceSpec, LabSpec, RegionSpec, RouterPreset, RouterSpec
from patchbay.model.link import Direction
from tests.pure.labs import FIREWALLS, NATS, random_condition

__all__ = ["KINDS", "walk"]

ADDRESSES = [*map(ip_address, ("192.0.2.1", "2001:db8:ffff::1"))]
Maker = Callable[[Random, Layout], Change | None]


def _named(layout: Layout, kind: RouterKind) -> list[str]:
    return [each.name for each in layout.forwarders.values() if each.kind is kind]


def _routers(layout: Layout) -> list[str]:
    return _named(layout, RouterKind.ROUTER)


def _free(rng: Random, layout: Layout, stem: str) -> str:
    """A name that is not taken; often one that was taken before."""
    taken = {node.name for node in layout.nodes()}
    return rng.choice([name for number in range(60) if (name := f"{stem}{number}") not in taken][:3])


def _add_router(rng: Random, layout: Layout) -> Change | None:
    upstream = rng.choice([None, *_routers(layout)])
    region = rng.choice([None, *_named(layout, RouterKind.REGION)]) if upstream is None else None
    router = RouterSpec(
        _free(rng, layout, "router"),
        preset=rng.choice([None, *RouterPreset]),
        upstream=upstream,
        region=region,
        mtu=rng.choice([None, None, 1400, 9000]),
        downlink=rng.choice([None, random_condition(rng)]),
    )
    return Add(LabSpec(routers=(router,)))


def _add_device(rng: Random, layout: Layout) -> Change | None:
    names = rng.sample(["eth0", "wlan0", "wan"], rng.randint(1, 2))
    if not _routers(layout):
        return None
    ifaces = {
        name: IfaceSpec(rng.choice(_routers(layout)), rng.choice([None, random_condition(rng)]))
        for name in names
    }
    device = DeviceSpec(_free(rng, layout, "device"), ifaces, mtu=rng.choice([None, None, 1300, 9000]))
    return Add(LabSpec(devices=(device,)))


def _add_region(rng: Random, layout: Layout) -> Change | None:
    return Add(LabSpec(regions=(RegionSpec(_free(rng, layout, "region")),)))


def _remove_device(rng: Random, layout: Layout) -> Change | None:
    return RemoveDevice(rng.choice([*layout.devices])) if layout.devices else None


def _remove_router(rng: Random, layout: Layout) -> Change | None:
    above = {iface.router_ns for node in layout.nodes() for iface in node.ifaces}
    alone = [
        each.name
        for each in layout.forwarders.values()
        if each.kind is RouterKind.ROUTER and each.ns not in above
    ]
    return RemoveRouter(rng.choice(alone)) if alone else None


def _link(rng: Random, layout: Layout) -> Change | None:
    if not layout.devices:
        return None
    device = rng.choice([*layout.devices.values()])
    name = rng.choice(device.ifaces).name
    if rng.random() < 0.3:
        return SetLinkCondition(device.name, name)
    return SetLinkCondition(device.name, name, random_condition(rng), rng.choice([*Direction]))


def _downlink(rng: Random, layout: Layout) -> Change | None:
    if not (routers := _routers(layout)):
        return None
    if rng.random() < 0.3:
        return SetDownlinkCondition(rng.choice(routers))
    return SetDownlinkCondition(rng.choice(routers), random_condition(rng), rng.choice([*Direction]))


def _regions(rng: Random, layout: Layout) -> Change | None:
    names = _named(layout, RouterKind.REGION)
    if len(names) < 2:
        return None
    a, b = rng.sample(names, 2)
    return LinkRegions(a, b, random_condition(rng))


def _linked(rng: Random, layout: Layout) -> list[str] | None:
    pairs = [key[1:] for key in layout.wires if key[0] == "regions"]
    return rng.sample(rng.choice(pairs), 2) if pairs else None


def _break(rng: Random, layout: Layout) -> Change | None:
    pair = _linked(rng, layout)
    return BreakRegionLink(*pair) if pair else None


def _restore(rng: Random, layout: Layout) -> Change | None:
    pair = _linked(rng, layout)
    return RestoreRegionLink(*pair) if pair else None


def _policy(rng: Random, layout: Layout) -> Change | None:
    if not (routers := _routers(layout)):
        return None
    router = rng.choice(routers)
    changes = (SetNat(router, rng.choice(NATS)), SetFirewall(router, rng.choice(FIREWALLS)), FlushNat(router))
    return rng.choice(changes)


def _name(rng: Random, layout: Layout) -> Change | None:
    node = rng.choice([None, "ix", *layout.devices, *_routers(layout)])
    address = rng.choice(ADDRESSES)
    changes: tuple[Change, ...] = (
        AddName(f"name{rng.randint(0, 3)}.lab", (address,), node),
        RemoveName(f"name{rng.randint(0, 3)}.lab", node=node),
        SetNameserver(address, node),
    )
    return rng.choice(changes)


KINDS: tuple[Maker, ...] = (
    *(_add_router, _add_device, _add_device, _add_region, _remove_device, _remove_router),
    *(_link, _link, _downlink, _regions, _break, _restore, _policy, _name),
)


def walk(layout: Layout, seed: int, steps: int = 8) -> Iterator[tuple[Change, Layout, Layout]]:
    """Each change, the layout before it and the layout after it. What is refused is not in the walk."""
    rng = Random(seed)
    for _ in range(steps):
        change = rng.choice(KINDS)(rng, layout)
        if change is None:
            continue
        try:
            new = change.apply(layout)
        except SpecError:
            continue
        yield change, layout, new
        layout = new
