"""Adding nodes to a lab, and removing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from attrs import frozen

from patchbay.change.base import Event
from patchbay.change.fields import device_fields, link_fields, router_fields
from patchbay.errors import Problem, SpecError
from patchbay.layout.allocate import extend
from patchbay.layout.check import in_build_order
from patchbay.layout.find import find_device, find_router
from patchbay.layout.layout import Layout, NodeLayout
from patchbay.layout.remove import without_node
from patchbay.layout.wires import region_key
from patchbay.model.lab import LabSpec

__all__ = ["Add", "RemoveDevice", "RemoveRouter"]


@frozen
class Add:
    """Add regions, routers, devices, and links between regions."""

    action: ClassVar[str] = "add"

    spec: LabSpec

    def apply(self, layout: Layout) -> Layout:
        return extend(layout, self.spec)

    def describe(self) -> str:
        parts = (
            *(f"region '{region.name}'" for region in self.spec.regions),
            *(f"router '{router.name}'" for router in self.spec.routers),
            *(f"device '{device.name}'" for device in self.spec.devices),
            *(f"a link between regions '{link.a}' and '{link.b}'" for link in self.spec.region_links),
        )
        return f"add {', '.join(parts) or 'nothing'}"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        for region in self.spec.regions:
            yield "region_added", router_fields(new, new.forwarders[f"region:{region.name}"])
        for router in in_build_order(self.spec.routers):
            yield "router_added", router_fields(new, new.forwarders[f"router:{router.name}"])
        for device in self.spec.devices:
            yield "device_added", device_fields(new, new.devices[device.name])
        for link in self.spec.region_links:
            yield "region_linked", link_fields(new, region_key(new, link.a, link.b))


@frozen
class RemoveDevice:
    """Remove a device, with everything that runs in it."""

    action: ClassVar[str] = "remove-device"

    device: str

    def apply(self, layout: Layout) -> Layout:
        return without_node(layout, find_device(layout, self.device))

    def describe(self) -> str:
        return f"remove device '{self.device}'"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        yield "device_removed", {"name": self.device}


@frozen
class RemoveRouter:
    """Remove a router. Refused while a node is below it."""

    action: ClassVar[str] = "remove-router"

    router: str

    def apply(self, layout: Layout) -> Layout:
        router = find_router(layout, self.router)
        below = [node for node in layout.nodes() if any(i.router_ns == router.ns for i in node.ifaces)]
        if below:
            what = f"found router '{self.router}' with {_listed(below)} below it"
            raise SpecError([Problem("router", f"{what}; accepted: a router with nothing below it")])
        return without_node(layout, router)

    def describe(self) -> str:
        return f"remove router '{self.router}'"

    def events(self, old: Layout, new: Layout) -> Iterator[Event]:
        yield "router_removed", {"name": self.router}


def _listed(nodes: Iterable[NodeLayout]) -> str:
    return ", ".join(f"'{node.name}'" for node in nodes)
