"""What becomes of the servers of port mappings while a lab is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from patchbay.errors import PortMappingLostError
from patchbay.plan.port_mapping import mapper_name, mapping_server

if TYPE_CHECKING:
    from patchbay.lab.changes import Changes

__all__ = ["PortMappings"]


class PortMappings:
    """Notes which routers' servers ended by themselves. The next generation of a router has a new one."""

    def __init__(self, changes: Changes, event: Callable[..., None]) -> None:
        self._changes = changes
        self._event = event
        # By namespace: the generation that it ended in, and why.
        self._lost: dict[str, tuple[int, str]] = {}

    def helper_died(self, ns: str, name: str, words: str) -> None:
        """A process of the lab's own ended: maybe one of these."""
        layout = self._changes.standing
        for router in layout.forwarders.values():
            if (router.ns, mapper_name(router)) == (ns, name):
                reason = words or "killed?"
                self._event("service_lost", service="port-mapper", router=router.name, reason=reason)
                text = f"the server of port mappings on router '{router.name}' ended: {reason}"
                self._lost[ns] = (layout.policy(router).generation, text)

    def check_all_there(self) -> None:
        """Raises `PortMappingLostError` if a server was lost and its router has not been reset since."""
        layout = self._changes.standing
        servers = {
            (router.ns, layout.policy(router).generation)
            for router in layout.forwarders.values()
            if mapping_server(router, layout.policy(router))
        }
        lost = [text for ns, (generation, text) in self._lost.items() if (ns, generation) in servers]
        if lost:
            raise PortMappingLostError("\n".join(lost))
