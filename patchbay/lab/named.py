"""Names of hosts: the same for a lab, where they hold in every node, and for one node."""

from __future__ import annotations

from patchbay.change.made import made_of
from patchbay.change.names import AddName, RemoveName, SetNameserver
from patchbay.lab.core import Core
from patchbay.layout.layout import Address

__all__ = ["Named"]


class Named:
    """A lab or a node, as a holder of host names: a lab's names hold in every node, a node's in itself alone.

    Names act on the processes of a node, and inside `enter()`. Where a node has addresses of its own for a
    name, it does not see the lab's addresses of that name. Case and a final dot do not matter (RFC 4343).
    """

    _core: Core

    @property
    def _scope(self) -> str | None:
        """Return the name of the node, or None for every node."""
        raise NotImplementedError

    def dns_entry(self, name: str, *ips: str | Address) -> None:
        """Add addresses to `name`, which may have any number of both families.

        Raises `SpecError` for a name or an address that cannot be one.
        """
        self._core.apply_now(made_of(AddName, name=name, ips=ips, node=self._scope))

    def remove_dns_entry(self, name: str, *ips: str | Address) -> None:
        """Remove addresses that `dns_entry` gave `name` here: these, or all if none is given.

        Raises `SpecError` if `name` has no such address.
        """
        self._core.apply_now(made_of(RemoveName, name=name, ips=ips, node=self._scope))

    def resolve(self, name: str) -> Address | None:
        """Return the first address that `dns_entry` gave `name`, or None."""
        return next(iter(self.resolve_all(name)), None)

    def resolve_all(self, name: str) -> tuple[Address, ...]:
        """Return all addresses that `dns_entry` gave `name`, in the order in which they were given."""
        return self._core.visible.names.resolve(self._scope or "", name)

    def set_nameserver(self, ip: str | Address) -> None:
        """Set the name server that processes ask (`/etc/resolv.conf`)."""
        self._core.apply_now(made_of(SetNameserver, ip=ip, node=self._scope))
