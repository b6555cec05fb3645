"""Realistic networks out of Linux network namespaces, with real code in them.

async with patchbay.open_lab() as lab:
    home = await lab.add_router("home", preset="home")
    laptop = await lab.add_device("laptop", uplink=home)
    await laptop.run(["ping", "-c1", str(lab.ix.ip)])
"""

from patchbay.errors import (
    AllocationError,
    CommandFailed,
    ExpectationFailed,
    HostError,
    LabBrokenError,
    LabClosedError,
    LabDiedError,
    OutsideNodeError,
    PatchbayError,
    SpecError,
    StaleHandleError,
    StepFailed,
    WorkerError,
)
from patchbay.lab.lab import Lab
from patchbay.lab.node import Interface, Node
from patchbay.lab.nodes import Device, Iface, Ix, Region, Router
from patchbay.lab.open import open_lab
from patchbay.model.lab import Firewall, IpSupport, Ipv6, LabSpec, Nat, NatV6, RouterPreset
from patchbay.record.events import LabEvent
from patchbay.record.journal import Record
from patchbay.sandbox.process import NodeProcess

__all__ = [
    "AllocationError",
    "CommandFailed",
    "Device",
    "ExpectationFailed",
    "Firewall",
    "HostError",
    "Iface",
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
    "Nat",
    "NatV6",
    "Node",
    "NodeProcess",
    "OutsideNodeError",
    "PatchbayError",
    "Record",
    "Region",
    "Router",
    "RouterPreset",
    "SpecError",
    "StaleHandleError",
    "StepFailed",
    "WorkerError",
    "open_lab",
]
