"""The STUN server of a device that has one."""

from __future__ import annotations

from patchbay.layout.layout import DeviceLayout
from patchbay.plan.resources import Phase, Resource, Resources
from patchbay.tools.commands import EndService, StartService
from patchbay.tools.service import Service

__all__ = ["stun_server"]

_MODULE = "patchbay.services.stun_server"
_ARGS = ("--port", "3478")  # RFC 8489 section 18.6


def stun_server(device: DeviceLayout) -> Resources:
    """Return the process that serves STUN on a device, if the device has one."""
    if not device.stun:
        return
    name = f"{_MODULE} {' '.join(_ARGS)}"
    server = Service(
        device.ns,
        name,
        _MODULE,
        _ARGS,
        kind="stun",
        key=("device", device.name),
        title=f"the STUN server of device '{device.name}'",
        packages=True,
    )
    why, end = f"serve STUN on device '{device.name}'", f"end the STUN server of device '{device.name}'"
    yield (
        ("service", device.ns, name),
        Resource(
            (StartService(server, why=why, owner=device.ns),),
            (EndService(server, why=end, owner=device.ns),),
            Phase.ACT,
            within=(("netns", device.ns),),
            process=True,
            identity=device.number,
        ),
    )
