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
from patchbay.sim.spec.interpolate import Spellings

__all__ = ["Topology", "check_topology"]


@frozen
class Topology:
    """`counts` are the counted devices by their bare name; `devices` are all of them, written out."""

    devices: tuple[str, ...] = ()
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
        return Spellings.of((*self.devices, *self.counts), self.routers)

    def lacks_address(self, node: str, version: int) -> bool:
        """Return whether a node is known to have no address of that IP version."""
        known = self.layout.node(f"{node}-0" if node in self.counts else node) if self.layout else None
        if known is None:
            return False
        if isinstance(known, RouterLayout):
            addresses = known.uplink.addresses if known.uplink else known.lan.addresses
            return of_version(addresses, version) is None
        iface = known.default_iface(version)
        return iface is None or of_version(iface.addresses, version) is None


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
        devices=tuple(device.name for device in draft.spec.devices),
        routers=(*(router.name for router in draft.spec.routers if router.name), "ix"),
        counts=counts,
        lab=draft.spec,
        layout=layout,
    )
    return topology, problems
