"""Model -> plain values in the words of a lab file: reading them gives the same model again.

TOML and every JSON parser take these values: text, finite numbers, lists and tables.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from math import inf
from typing import Any

import attrs

from patchbay.model.firewall import FirewallConfig
from patchbay.model.lab import DeviceSpec, IfaceSpec, LabSpec, RegionLinkSpec
from patchbay.model.link import Impairment, Trace
from patchbay.model.nat import NatConfig, PortAllocation

__all__ = ["fields_of", "lab_table", "plain"]

Table = dict[str, Any]

_AS_TEXT = (StrEnum, PortAllocation, IPv4Address, IPv6Address, IPv4Network, IPv6Network)


def plain(value: Any) -> Any:
    """Return a value of the model as a file would have it."""
    if isinstance(value, Impairment):
        return _condition(value)
    if isinstance(value, NatConfig | FirewallConfig):
        return {key: plain(item) for key, item in attrs.asdict(value, recurse=False).items()}
    if isinstance(value, _AS_TEXT):
        return str(value)
    if isinstance(value, Trace):
        return value.path
    if isinstance(value, tuple):
        return list(map(plain, value))
    return value


def _condition(condition: Impairment) -> Table:
    """Return what a condition says. No limit is 0, because JSON has no infinity."""
    return {key: 0 if value == inf else plain(value) for key, value in condition.set_values().items()}


def fields_of(value: Any) -> Table:
    """Return the fields of a value that are not the defaults."""
    found = {}
    for field in attrs.fields(type(value)):
        item = getattr(value, field.name)
        if item != field.default:
            found[field.name] = plain(item)
    return found


def lab_table(spec: LabSpec) -> Table:
    """Return the topology as a lab file has it, with counted devices written out."""
    table = {
        "addresses": plain(spec.addresses),
        "region": {region.name: {} for region in spec.regions},
        "region-link": list(map(_region_link, spec.region_links)),
        "router": list(map(fields_of, spec.routers)),
        "device": {device.name: _device(device) for device in spec.devices},
    }
    return {key: part for key, part in table.items() if part}


def _region_link(link: RegionLinkSpec) -> Table:
    return {"a": link.a, "b": link.b, **plain(link.condition)}


def _device(device: DeviceSpec) -> Table:
    own = {
        "default_via": device.default_via,
        "mtu": device.mtu,
        "private": list(device.private) or None,
        "stun": device.stun or None,
    }
    ifaces = {name: _iface(iface) for name, iface in device.ifaces.items()}
    return {**{key: value for key, value in own.items() if value is not None}, **ifaces}


def _iface(iface: IfaceSpec) -> Table:
    link = {} if iface.link is None else {"link": plain(iface.link)}
    return {"gateway": iface.router, **link}
