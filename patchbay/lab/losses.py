"""Services of a lab that ended by themselves, with the consequences."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from patchbay.change.base import Change
from patchbay.change.fields import link_place
from patchbay.change.links import LoseLink
from patchbay.errors import LinkLostError, PatchbayError, PortMappingLostError, ServiceLostError
from patchbay.lab.session import Session
from patchbay.layout.layout import Layout
from patchbay.model.link import Emulator
from patchbay.plan.port_mapping import mapping_server
from patchbay.plan.view import emulator_of
from patchbay.sandbox.inside import wire
from patchbay.tools.service import Service

if TYPE_CHECKING:
    from patchbay.lab.changes import Changes

__all__ = ["Losses"]

Key = tuple[str, ...]

_log = logging.getLogger("patchbay")


@frozen
class _Kind:
    """The consequences of losing one kind of service.

    `place` gives the fields of its events. `is_wanted` returns True if a layout needs the service.
    `answer` makes the change that shows the loss to the nodes, where there is one.
    """

    error: type[ServiceLostError]
    place: Callable[[Key], dict[str, Any]]
    is_wanted: Callable[[Layout, Key], bool]
    answer: Callable[[Key], Change] | None = None


def _has_relay(layout: Layout, key: Key) -> bool:
    wire = layout.wires.get(key)
    return wire is not None and emulator_of(layout, wire) is Emulator.USERSPACE


def _maps_ports(layout: Layout, key: Key) -> bool:
    router = layout.router(key[1])
    return router is not None and mapping_server(router, layout.policy(router)) is not None


def _serves_stun(layout: Layout, key: Key) -> bool:
    device = layout.devices.get(key[1])
    return device is not None and device.stun


_KINDS = {
    "relay": _Kind(LinkLostError, link_place, _has_relay, LoseLink),
    "port-mapper": _Kind(PortMappingLostError, lambda key: {"router": key[1]}, _maps_ports),
    "stun": _Kind(ServiceLostError, lambda key: {"device": key[1]}, _serves_stun),
}


@frozen
class _Loss:
    """A service that ended; `stuck`: what follows from that could not be done."""

    service: Service
    reason: str
    stuck: bool = False

    @property
    def kind(self) -> _Kind:
        return _KINDS[self.service.kind]


class Losses:
    """Notes the services that were lost. One that runs again, or is not wanted any more, is no loss."""

    def __init__(self, changes: Changes, session: Session, event: Callable[..., None]) -> None:
        self._changes = changes
        self._session = session
        self._event = event
        self._lost: dict[Key, _Loss] = {}
        session.services.died = self._died
        session.services.reported = self._reported

    def _died(self, service: Service, words: str) -> None:
        reason = f"{service.title} ended" + (f":\n{words}" if words else " (killed?)")
        loss = self._lost[service.key] = _Loss(service, reason)
        place = loss.kind.place(service.key)
        self._event("service_lost", service=service.kind, **place, reason=reason)
        if loss.kind.answer:
            self._session.start(self._answer_beside_the_block, service.key)

    def _reported(self, service: Service, message: wire.Message) -> None:
        """Tell that the relay of a link cannot keep up: what it misses is lost, and no rule of the link."""
        missed = message["overloaded"]
        self._event("link_overloaded", **link_place(service.key), missed=missed)
        _log.warning(
            "%s cannot keep up: it missed %d packets up and %d down so far, which are lost; use fewer links, "
            "lower rates, or a kernel with netem",
            service.title,
            missed["up"],
            missed["down"],
        )

    def _is_lost(self, key: Key) -> bool:
        loss = self._lost.get(key)
        if loss is None or loss.stuck:
            return loss is not None
        return not self._session.services.runs(loss.service) and loss.kind.is_wanted(
            self._changes.applied, key
        )

    async def settle(self, key: Key) -> None:
        """Apply at once what follows from the loss of a service, if it was lost."""
        if self._is_lost(key) and (answer := self._lost[key].kind.answer):
            await self._changes.apply(answer(key), when=lambda: self._is_lost(key))
            self._lost[key] = evolve(self._lost[key], stuck=False)

    async def _answer_beside_the_block(self, key: Key) -> None:
        """Do so in a task of the lab's. A failure is raised at the end of the lab's block, with the loss."""
        try:
            await self.settle(key)
        except PatchbayError as error:
            loss = self._lost[key]
            reason = f"{loss.reason}\nand what follows from it could not be done:\n{error}"
            self._lost[key] = evolve(loss, reason=reason, stuck=True)

    def check_all_there(self) -> None:
        """Raise the `ServiceLostError` of services that were lost and did not come back."""
        lost = [loss for key, loss in self._lost.items() if self._is_lost(key)]
        if lost:
            errors = {loss.kind.error for loss in lost}
            error = errors.pop() if len(errors) == 1 else ServiceLostError
            raise error("\n".join(loss.reason for loss in lost))
