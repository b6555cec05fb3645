"""Resources that several parts of a lab have: addresses, routes, neighbours."""

from __future__ import annotations

from patchbay.layout.layout import Address, Interface, RouteLayout
from patchbay.model.names import IfName, NsName
from patchbay.plan.resources import GONE, Key, Phase, Resource
from patchbay.tools import ip
from patchbay.tools.commands import Ip

__all__ = ["address_resource", "neighbour", "route_resource"]


def address_resource(
    ns: NsName, address: Interface, dev: IfName, why: str, owner: str, phase: Phase = Phase.CONFIGURE
) -> tuple[Key, Resource]:
    return ("address", ns, dev, str(address)), Resource(
        (Ip(ns, ip.addr_add(address, dev), why=why, owner=owner),),
        (Ip(ns, ip.addr_del(address, dev), why=why, owner=owner, tolerate=GONE),),
        phase,
        within=(("link", ns, dev),),
    )


def route_resource(
    route: RouteLayout, why: str, owner: str, within: Key, phase: Phase = Phase.CONFIGURE
) -> tuple[Key, Resource]:
    return ("route", route.ns, str(route.prefix), route.dev), Resource(
        (Ip(route.ns, ip.route_add(route), why=why, owner=owner),),
        (Ip(route.ns, ip.route_del(route), why=why, owner=owner, tolerate=GONE),),
        phase,
        within=(within,),
        fixed=True,
    )


def neighbour(
    ns: NsName,
    address: Address,
    mac: str,
    dev: IfName,
    why: str,
    owner: str,
    within: Key,
    phase: Phase = Phase.CONFIGURE,
) -> tuple[Key, Resource]:
    """Return a permanent entry for a neighbour, so that nobody has to ask for it."""
    return ("neigh", ns, dev, str(address)), Resource(
        (Ip(ns, ip.neigh_set(address, mac, dev), why=why, owner=owner),),
        (Ip(ns, ip.neigh_forget(address, dev), why=why, owner=owner, tolerate=GONE),),
        phase,
        within=(within,),
        late=True,
    )
