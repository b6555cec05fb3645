"""Changes of a lab, as values: `await lab.apply(SetNat("home", Nat.CORPORATE))`.

`to_table` and `from_table` turn them into plain tables, as TOML and JSON have them, and back.
"""

from typing import TYPE_CHECKING

from patchbay.lazy import lazily as _lazily

if TYPE_CHECKING:
    from patchbay.change.base import Change, Event
    from patchbay.change.codec import from_table, to_table
    from patchbay.change.links import (
        BreakRegionLink,
        LinkRegions,
        RestoreRegionLink,
        SetDownlinkCondition,
        SetLinkCondition,
    )
    from patchbay.change.names import AddName, RemoveName, SetNameserver
    from patchbay.change.nodes import Add, RemoveDevice, RemoveRouter
    from patchbay.change.policies import FlushNat, SetFirewall, SetNat

__all__ = [
    "Add",
    "AddName",
    "BreakRegionLink",
    "Change",
    "Event",
    "FlushNat",
    "LinkRegions",
    "RemoveDevice",
    "RemoveName",
    "RemoveRouter",
    "RestoreRegionLink",
    "SetDownlinkCondition",
    "SetFirewall",
    "SetLinkCondition",
    "SetNameserver",
    "SetNat",
    "from_table",
    "to_table",
]

_HOMES = {
    "Add": "patchbay.change.nodes",
    "BreakRegionLink": "patchbay.change.links",
    "Change": "patchbay.change.base",
    "Event": "patchbay.change.base",
    "FlushNat": "patchbay.change.policies",
    "LinkRegions": "patchbay.change.links",
    "RemoveDevice": "patchbay.change.nodes",
    "RemoveRouter": "patchbay.change.nodes",
    "RestoreRegionLink": "patchbay.change.links",
    "SetDownlinkCondition": "patchbay.change.links",
    "SetFirewall": "patchbay.change.policies",
    "SetLinkCondition": "patchbay.change.links",
    "AddName": "patchbay.change.names",
    "RemoveName": "patchbay.change.names",
    "SetNameserver": "patchbay.change.names",
    "SetNat": "patchbay.change.policies",
    "from_table": "patchbay.change.codec",
    "to_table": "patchbay.change.codec",
}

__getattr__ = _lazily(__name__, _HOMES)
