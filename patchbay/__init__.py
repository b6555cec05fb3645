"""Realistic networks out of Linux network namespaces, with real code in them.

async with patchbay.open_lab() as lab:
    home = await lab.add_router("home", preset="home")
    laptop = await lab.add_device("laptop", uplink=home)
    await laptop.run(["ping", "-c1", str(lab.ix.ip)])
"""

from typing import TYPE_CHECKING

from patchbay.lazy import lazily as _lazily

if TYPE_CHECKING:
    from patchbay.errors import (
        AllocationError,
        CommandFailed,
        ExpectationFailed,
        HostError,
        LabBrokenError,
        LabClosedError,
        LabDiedError,
        LinkLostError,
        OutsideNodeError,
        PatchbayError,
        PortMappingLostError,
        ServiceLostError,
        SpecError,
        StaleHandleError,
        StepFailed,
        WorkerError,
    )
    from patchbay.lab.lab import Lab
    from patchbay.lab.links import DirectionStats, LinkStats
    from patchbay.lab.node import Interface, Node
    from patchbay.lab.nodes import Device, Iface, Ix, Region, Router
    from patchbay.lab.open import open_lab
    from patchbay.model.firewall import Firewall, FirewallConfig
    from patchbay.model.lab import IpSupport, Ipv6, LabSpec, NatV6, RouterPreset
    from patchbay.model.link import (
        Condition,
        Direction,
        Emulator,
        Impairment,
        LinkCondition,
        LinkPreset,
        RegionLink,
    )
    from patchbay.model.nat import Behavior, Nat, NatConfig, PortAllocation
    from patchbay.record.events import LabEvent
    from patchbay.record.journal import Record
    from patchbay.sandbox.process import NodeProcess

__all__ = [
    "AllocationError",
    "Behavior",
    "CommandFailed",
    "Condition",
    "Device",
    "Direction",
    "DirectionStats",
    "Emulator",
    "ExpectationFailed",
    "Firewall",
    "FirewallConfig",
    "HostError",
    "Iface",
    "Impairment",
    "Interface",
    "IpSupport",
    "Ipv6",
    "Ix",
    "Lab",
    "LabBrokenError",
    "LabClosedError",
    "LabDiedError",
    "LabEvent",
    "LabSpec",
    "LinkCondition",
    "LinkLostError",
    "LinkPreset",
    "LinkStats",
    "Nat",
    "NatConfig",
    "NatV6",
    "Node",
    "NodeProcess",
    "OutsideNodeError",
    "PatchbayError",
    "PortAllocation",
    "PortMappingLostError",
    "Record",
    "Region",
    "RegionLink",
    "Router",
    "RouterPreset",
    "ServiceLostError",
    "SpecError",
    "StaleHandleError",
    "StepFailed",
    "WorkerError",
    "open_lab",
]

# Where each name lives. Loaded when it is first asked for: `patchbay plan` and other users of the
# pure half need no trio, and no Linux.
_HOMES = {
    "AllocationError": "patchbay.errors",
    "Behavior": "patchbay.model.nat",
    "CommandFailed": "patchbay.errors",
    "Condition": "patchbay.model.link",
    "Device": "patchbay.lab.nodes",
    "Direction": "patchbay.model.link",
    "DirectionStats": "patchbay.lab.links",
    "Emulator": "patchbay.model.link",
    "ExpectationFailed": "patchbay.errors",
    "Firewall": "patchbay.model.firewall",
    "FirewallConfig": "patchbay.model.firewall",
    "HostError": "patchbay.errors",
    "Iface": "patchbay.lab.nodes",
    "Impairment": "patchbay.model.link",
    "Interface": "patchbay.lab.node",
    "IpSupport": "patchbay.model.lab",
    "Ipv6": "patchbay.model.lab",
    "Ix": "patchbay.lab.nodes",
    "Lab": "patchbay.lab.lab",
    "LabBrokenError": "patchbay.errors",
    "LabClosedError": "patchbay.errors",
    "LabDiedError": "patchbay.errors",
    "LabEvent": "patchbay.record.events",
    "LabSpec": "patchbay.model.lab",
    "LinkCondition": "patchbay.model.link",
    "LinkLostError": "patchbay.errors",
    "LinkPreset": "patchbay.model.link",
    "LinkStats": "patchbay.lab.links",
    "Nat": "patchbay.model.nat",
    "NatConfig": "patchbay.model.nat",
    "NatV6": "patchbay.model.lab",
    "Node": "patchbay.lab.node",
    "NodeProcess": "patchbay.sandbox.process",
    "OutsideNodeError": "patchbay.errors",
    "PatchbayError": "patchbay.errors",
    "PortAllocation": "patchbay.model.nat",
    "PortMappingLostError": "patchbay.errors",
    "Record": "patchbay.record.journal",
    "Region": "patchbay.lab.nodes",
    "RegionLink": "patchbay.model.link",
    "Router": "patchbay.lab.nodes",
    "RouterPreset": "patchbay.model.lab",
    "ServiceLostError": "patchbay.errors",
    "SpecError": "patchbay.errors",
    "StaleHandleError": "patchbay.errors",
    "StepFailed": "patchbay.errors",
    "WorkerError": "patchbay.errors",
    "open_lab": "patchbay.lab.open",
}


__getattr__ = _lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
