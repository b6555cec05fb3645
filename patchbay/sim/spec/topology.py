"""A sim's topology, as far as it can be read: names in any case, addresses if it has no problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from attrs import field, frozen

from patchbay.config.draft import Draft
from patchbay.errors import AllocationError, Problem, SpecError
from patchbay.layout.allocate import lay_out
from patchbay.layout.layout import Layout, RouterLayout, of_version
from patchbay.model.lab import LabSpec
from patchbay.sim.spec.interpolate import NodeAddress, Spellings

__all__ = ["Topology", "check_topology"]


@frozen
class Topology:
    """`counts` are the counted devices by their bare name; `devices` are all of them, written out.

    `devices` has the names of their interfaces.
    """

    devices: Mapping[str, tuple[str, ...]] = field(factory=dict)
    routers: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(factory=dict)
    lab: LabSpec = field(factory=LabSpec)
    layout: Layout | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """Return what a step's `device` may name."""
        return (*self.devices, *self.routers, *self.counts)

    @property
    def spellings(self) -> Spellings:
        """Return the spellings of nodes in a sim; counted devices also by their bare name."""
        counted = {name: self.devices.get(f"{name}-0", ()) for name in self.counts}
        return Spellings.of({**self.devices, **counted}, self.routers)

    def lacks_address(self, address: NodeAddress) -> bool:
        """Return True if a node is known to have no address of that IP version."""
        name = f"{address.node}-0" if address.node in self.counts else address.node
        known = self.layout.node(name) if self.layout else None
        if known is None:
            return False
        if isinstance(known, RouterLayout):
            addresses = known.uplink.addresses if known.uplink else known.lan.addresses
            return of_version(addresses, address.version) is None
        if address.iface is None:
            iface = known.default_iface(address.version)
        else:
            iface = next(iface for iface in known.ifaces if iface.name == address.iface)
        return iface is None or of_version(iface.addresses, address.version) is None


def check_topology(draft: Draft) -> tuple[Topology | None, list[Problem]]:
    """Return the topology of a draft, and all its problems; None where nothing is known of it."""
    problems: list[Problem] = []
    layout = None
    try:
        layout = lay_out(draft)
    except SpecError as error:
        problems = list(error.problems)
    except AllocationError as error:
        problems = [Problem("", str(error))]
    if draft.spec == LabSpec() and draft.problems:
        return None, problems
    counts = Counter(device.counted_from for device in draft.spec.devices if device.counted_from)
    topology = Topology(
        devices={device.name: tuple(device.ifaces) for device in draft.spec.devices},
        routers=(*(router.name for router in draft.spec.routers if router.name), "ix"),
        counts=counts,
        lab=draft.spec,
        layout=layout,
    )
    return topology, problems
