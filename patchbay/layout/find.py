"""Looking up by name what a lab has. An unknown name is a `SpecError` that lists those there are."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from patchbay.errors import Problem, SpecError, did_you_mean
from patchbay.layout.layout import DeviceLayout, IfaceLayout, Layout, NodeLayout, RouterKind, RouterLayout

__all__ = ["find_device", "find_iface", "find_node", "find_region", "find_router", "known", "names_of"]

_LISTED = 12


def known(wrong: object, names: Collection[str]) -> str:
    """Return the end of a message about the unknown name `wrong`: the names that there are."""
    if not names:
        return "; there is none yet"
    listed = ", ".join(sorted(names)[:_LISTED]) + (", …" if len(names) > _LISTED else "")
    return f"; known: {listed}{did_you_mean(wrong, names)}"


def names_of(layout: Layout, kind: RouterKind) -> set[str]:
    """Return the names of all routers, or of all regions."""
    return {forwarder.name for forwarder in layout.forwarders.values() if forwarder.kind is kind}


def _unknown(key: str, kind: str, wrong: str, names: Iterable[str]) -> SpecError:
    return SpecError([Problem(key, f"unknown {kind} '{wrong}'{known(wrong, {*names})}")])


def find_router(layout: Layout, name: str, key: str = "router") -> RouterLayout:
    """Return the router of that name; `key` is where the name comes from."""
    if found := layout.router(name):
        return found
    raise _unknown(key, "router", name, names_of(layout, RouterKind.ROUTER))


def find_region(layout: Layout, name: str, key: str = "region") -> RouterLayout:
    """Return the region of that name."""
    if found := layout.region(name):
        return found
    raise _unknown(key, "region", name, names_of(layout, RouterKind.REGION))


def find_device(layout: Layout, name: str, key: str = "device") -> DeviceLayout:
    """Return the device of that name."""
    if found := layout.devices.get(name):
        return found
    raise _unknown(key, "device", name, layout.devices)


def find_node(layout: Layout, name: str, key: str = "node") -> NodeLayout:
    """Return the device, router or exchange of that name."""
    if found := layout.node(name):
        return found
    names = (*layout.devices, *names_of(layout, RouterKind.ROUTER), layout.ix.name)
    raise _unknown(key, "node", name, names)


def find_iface(device: DeviceLayout, name: str, key: str = "interface") -> IfaceLayout:
    """Return the interface of that name."""
    for iface in device.ifaces:
        if iface.name == name:
            return iface
    raise _unknown(key, "interface", name, (iface.name for iface in device.ifaces))
