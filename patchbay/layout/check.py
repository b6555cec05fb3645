"""Is what is to be added to a lab right, by itself and against what the lab already has?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network

from patchbay.errors import Problem
from patchbay.layout.find import known, names_of
from patchbay.layout.layout import Layout, Network, RouterKind
from patchbay.layout.wires import combined
from patchbay.model.lab import MTU_MOST, MTU_V4, MTU_V6, DeviceSpec, LabSpec, RouterSpec
from patchbay.model.link import PERFECT, merged
from patchbay.model.names import env_names, iface_name_problem, node_name_problem, private_folder_problem
from patchbay.model.nat import config_of
from patchbay.model.presets import resolve

__all__ = ["check", "device_path", "in_build_order"]


# RFC 6890 and RFC 4291: this host, loopback, link-local, multicast, reserved.
_NOT_FOR_HOSTS: tuple[Network, ...] = (
    *map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")),
    *map(IPv6Network, ("::/127", "fe80::/10", "ff00::/8")),
)


def check(layout: Layout, added: LabSpec) -> list[Problem]:
    """Return every problem of `added`; empty when all of it can be built."""
    return [
        *_addresses(layout, added),
        *_regions(layout, added),
        *_routers(layout, added),
        *_devices(layout, added),
        *_env_names(layout, added),
        *_region_links(layout, added),
    ]


def _addresses(layout: Layout, added: LabSpec) -> Iterator[Problem]:
    if added.addresses not in (None, layout.addresses):
        what = f"found '{added.addresses}', but the lab has '{layout.addresses}' since it was opened"
        yield Problem("addresses", f"{what}; accepted: the same, or open_lab(addresses='{added.addresses}')")


def _regions(layout: Layout, added: LabSpec) -> Iterator[Problem]:
    seen: set[str] = set()
    for region in added.regions:
        path = f"region.{region.name}"
        if problem := node_name_problem(region.name):
            yield Problem(path, problem)
        if layout.region(region.name) or region.name in seen:
            yield Problem(path, f"there is a region '{region.name}' already")
        seen.add(region.name)


def _node_name(layout: Layout, seen: dict[str, str], name: str, path: str) -> Iterator[Problem]:
    if problem := node_name_problem(name):
        yield Problem(path, problem)
    elif name == "ix":
        yield Problem(path, "'ix' is the name of the exchange; accepted: any other name")
    elif name in seen:
        yield Problem(path, f"duplicate name '{name}': it is also the name of {seen[name]}")
    elif existing := layout.node(name):
        kind = "a device" if name in layout.devices else "a router"
        yield Problem(path, f"duplicate name '{existing.name}': the lab has {kind} of that name")


def _routers(layout: Layout, added: LabSpec) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    routers = {router.name: router for router in added.routers}
    regions = {*(region.name for region in added.regions)}
    for index, router in enumerate(added.routers):
        path = f"router[{index}]"
        yield from _node_name(layout, seen, router.name, f"{path}.name")
        seen.setdefault(router.name, path)
        if router.upstream is not None and router.region is not None:
            yield Problem(
                f"{path}.region", "a router with an upstream is in its upstream's region; name only one"
            )
        if (
            router.upstream is not None
            and router.upstream not in routers
            and not layout.router(router.upstream)
        ):
            yield Problem(
                f"{path}.upstream", _unknown_router(router.upstream, layout, routers.keys() - {router.name})
            )
        if router.region is not None and router.region not in regions and not layout.region(router.region):
            names = regions | names_of(layout, RouterKind.REGION)
            yield Problem(f"{path}.region", f"unknown region '{router.region}'{known(router.region, names)}")
        yield from _mtu(router.mtu, resolve(router).ip_support.versions, path)
        yield from _downstream(router, path)
        yield from _port_mapping(router, f"{path}.port_mapping")
        if router.downlink is not None:
            yield from combined(merged(PERFECT, router.downlink), f"{path}.downlink")
    yield from _loops(added)


def _downstream(router: RouterSpec, path: str) -> Iterator[Problem]:
    families = resolve(router).ip_support.versions
    given: tuple[tuple[str, Network | None, int], ...] = (
        ("downstream_cidr", router.downstream_cidr, 30),
        ("downstream_cidr_v6", router.downstream_cidr_v6, 64),
    )
    for key, network, longest in given:
        if network is None:
            continue
        where = f"{path}.{key}"
        if network.version not in families:
            yield Problem(where, f"the router has no IPv{network.version} (ip_support)")
        if network.prefixlen > longest:
            yield Problem(where, f"found {network}; accepted: a prefix of at most {longest} bits")
        for other in _NOT_FOR_HOSTS:
            if other.version == network.version and network.overlaps(other):
                yield Problem(where, f"found {network}; accepted: addresses of hosts, none of {other}")
                break


def _port_mapping(router: RouterSpec, path: str) -> Iterator[Problem]:
    traits = resolve(router)
    if not router.port_mapping:
        return
    if 4 not in traits.ip_support.versions:
        yield Problem(path, "the router has no IPv4 (ip_support), whose ports could be mapped")
    elif config_of(traits.nat) is None:
        yield Problem(path, "the router has no NAT, whose ports could be mapped; accepted: one with a `nat`")


def _unknown_router(wrong: str, layout: Layout, routers: Collection[str]) -> str:
    names = names_of(layout, RouterKind.ROUTER) | set(routers)
    # A router whose name could not be read has none.
    return f"unknown router '{wrong}'{known(wrong, names - {''})}"


def _loops(added: LabSpec) -> Iterator[Problem]:
    upstream = {router.name: router.upstream for router in added.routers}
    for index, router in enumerate(added.routers):
        chain, above = [router.name], router.upstream
        while above in upstream and above not in chain:
            chain.append(above)
            above = upstream[above]
        if above == router.name:
            loop = " -> ".join([*chain, router.name])
            yield Problem(
                f"router[{index}].upstream",
                f"router loop: {loop}; accepted: a chain that ends at the exchange",
            )


def in_build_order(routers: Iterable[RouterSpec]) -> list[RouterSpec]:
    """Return the routers, each after the one above it, otherwise in their order."""
    by_name = {router.name: router for router in routers}
    placed: dict[str, RouterSpec] = {}
    for router in by_name.values():
        chain = []
        above: RouterSpec | None = router
        while above is not None and above.name not in placed:
            chain.append(above)
            above = by_name.get(above.upstream or "")
        placed.update((each.name, each) for each in reversed(chain))
    return list(placed.values())


def _mtu(mtu: int | None, versions: Iterable[int], path: str) -> Iterator[Problem]:
    least = MTU_V6 if 6 in versions else MTU_V4
    if mtu is not None and not least <= mtu <= MTU_MOST:
        why = f" (IPv6 needs {MTU_V6}: RFC 8200 section 5)" if MTU_V4 <= mtu < least else ""
        yield Problem(f"{path}.mtu", f"found {mtu}; accepted: {least} to {MTU_MOST} bytes{why}")


def device_path(device: DeviceSpec) -> str:
    """Return the path of the device in its lab file."""
    return f"device.{device.counted_from or device.name}"


def _devices(layout: Layout, added: LabSpec) -> Iterator[Problem]:
    routers = {router.name: router for router in added.routers}
    seen = {router.name: f"router[{index}]" for index, router in enumerate(added.routers)}
    for device in added.devices:
        path = device_path(device)
        yield from _node_name(layout, seen, device.name, path)
        seen.setdefault(device.name, path)
        if not device.ifaces:
            yield Problem(
                path, "a device needs an interface; accepted: at least one [device.NAME.IFACE] with a gateway"
            )
        if device.default_via is not None and device.default_via not in device.ifaces:
            yield Problem(
                f"{path}.default_via",
                f"unknown interface '{device.default_via}'{known(device.default_via, device.ifaces)}",
            )
        versions: set[int] = set()
        for name, iface in device.ifaces.items():
            if problem := iface_name_problem(name):
                yield Problem(f"{path}.{name}", problem)
            found = _versions(layout, routers, iface.router)
            versions.update(found)
            if not found:
                yield Problem(f"{path}.{name}.gateway", _unknown_router(iface.router, layout, routers))
            if iface.link is not None:
                yield from combined(merged(PERFECT, iface.link), f"{path}.{name}.link")
        yield from _mtu(device.mtu, versions, path)
        for index, folder in enumerate(device.private):
            if problem := private_folder_problem(folder):
                yield Problem(f"{path}.private[{index}]", problem)


def _versions(layout: Layout, routers: Mapping[str, RouterSpec], name: str) -> tuple[int, ...]:
    """Return the IP versions below the router of that name; none if there is no such router."""
    if name in routers:
        return resolve(routers[name]).ip_support.versions
    existing = layout.router(name)
    return existing.ip_support.versions if existing else ()


def _region_links(layout: Layout, added: LabSpec) -> Iterator[Problem]:
    names = names_of(layout, RouterKind.REGION) | {region.name for region in added.regions}
    for link in added.region_links:
        unknown = {key: name for key, name in (("a", link.a), ("b", link.b)) if name not in names}
        for key, name in unknown.items():
            # A table of latencies has no such keys: it is in one of the two regions, and names the other.
            path = f"{link.path}.{key}" if link.path.startswith("region-link") else link.path
            yield Problem(path, f"unknown region '{name}'{known(name, names)}")
        if link.a == link.b and not unknown:
            yield Problem(link.path, f"found '{link.a}' twice; accepted: two regions")
        yield from combined(merged(PERFECT, link.condition), link.path)


def _env_names(layout: Layout, added: LabSpec) -> Iterator[Problem]:
    """Find names that become the same variable, because one would hide the other."""
    taken = {
        variable: (device.name, iface)
        for device in layout.devices.values()
        for variable, iface in env_names(device.name, (iface.name for iface in device.ifaces))
    }
    for device in added.devices:
        for variable, iface in env_names(device.name, device.ifaces):
            other = taken.setdefault(variable, (device.name, iface))
            if other != (device.name, iface):
                own = f" of interface '{iface}'" if iface else ""
                message = f"collides with {_named(*other)}: both would be $PATCHBAY_IP_{variable}"
                yield Problem(device_path(device), f"the variable{own} {message}" if own else message)
                break


def _named(device: str, iface: str | None) -> str:
    return f"interface '{iface}' of device '{device}'" if iface else f"device '{device}'"
