"""Sim -> plain values, in the words of a sim file: what is read back is the same sim."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Any

import cattrs

from patchbay.model.lab import DeviceSpec
from patchbay.sim.durations import Seconds, in_words
from patchbay.sim.outcome import Sim

__all__ = ["as_table"]


def as_table(sim: Sim) -> dict[str, Any]:
    """The sim as a table of the shape of its file, with every repeated step written out."""
    converter = _converter()
    table: dict[str, Any] = {"sim": {"name": sim.name}}
    if sim.timeout is not None:
        table["sim"]["timeout"] = in_words(sim.timeout)
    table["router"] = [converter.unstructure(router) for router in sim.lab.routers]
    table["region"] = {region.name: {} for region in sim.lab.regions}
    table["device"] = {device.name: _device(converter, device) for device in sim.lab.devices}
    table["step"] = [
        {"action": planned.step.action, **converter.unstructure(planned.step)} for planned in sim.steps
    ]
    return {key: value for key, value in table.items() if value}


def _converter() -> cattrs.Converter:
    made = cattrs.Converter(omit_if_default=True)
    made.register_unstructure_hook(Seconds, in_words)
    made.register_unstructure_hook(IPv4Network, str)
    made.register_unstructure_hook(IPv6Network, str)
    return made


def _device(converter: cattrs.Converter, device: DeviceSpec) -> dict[str, Any]:
    ifaces = {}
    for name, iface in device.ifaces.items():
        link = converter.unstructure(iface)
        ifaces[name] = {"gateway": link.pop("router"), **link}
    own = {"default_via": device.default_via, "mtu": device.mtu}
    return {**{key: value for key, value in own.items() if value is not None}, **ifaces}
