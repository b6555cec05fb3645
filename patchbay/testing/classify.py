"""Classifying the NAT on a path: RFC 5780's tests by UDP, and similar tests by TCP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from patchbay.model.nat import Behavior
from patchbay.testing.place import Endpoint, Place
from patchbay.testing.probe import Answer, Hairpin, Observation, Prober, RetryTimes
from patchbay.testing.report import NatReport
from patchbay.testing.server import StunServers
from patchbay.testing.tcp import open_tcp
from patchbay.testing.timeouts import udp_timeout
from patchbay.testing.udp import UdpProber, open_udp

if TYPE_CHECKING:
    from patchbay.lab.node import Node

__all__ = ["classify_nat"]

Servers = StunServers | Endpoint | Sequence[Endpoint]


async def classify_nat(
    device: Node | None,
    servers: Servers,
    *,
    protocol: str = "udp",
    hairpin: bool = True,
    timeouts: bool = False,
    sockets: int = 8,
    rto: float = 0.2,
    tries: int = 5,
    longest: float = 330.0,
) -> NatReport:
    """Find out which NAT is between a node (None: the network that the program is in) and a STUN server.

    `servers` is what `serve_stun` gives, or (host, port) of a STUN server, or several of these: the first
    answer that tells OTHER-ADDRESS (RFC 5780) decides which one is used for everything. Without any,
    mapping is found out by two servers as far as it can be, and filtering is not. By TCP, filtering
    is found out only with `serve_stun`.

    `timeouts` measures how long idle UDP mappings last, for up to two and a half times as long; times
    over `longest` seconds are not reported. `sockets` fresh ones show which ports are given. A request is
    repeated after `rto` seconds and after twice the time each time, `tries` in all (given up after 6.2 s by
    default). Where an answer perhaps never comes, it is waited for 0.3 s, or for four round trips.

    What cannot be found out is None in the report, whose `notes` say why. Where nobody answers, `blocked` is
    true. Raises `ValueError` for another protocol than "udp" and "tcp", and for no server.
    """
    if protocol not in ("udp", "tcp"):
        raise ValueError(f"found protocol {protocol!r}; accepted: 'udp', 'tcp'")
    case = _Case(protocol, hairpin, timeouts, sockets, longest)
    place = Place(device)
    endpoints = await _look_up(place, _listed(servers), case.notes)
    own = await _own_address(place, endpoints, case.notes)
    if own is None:
        return NatReport(protocol=protocol, blocked=True, notes=tuple(case.notes))
    known = servers if isinstance(servers, StunServers) else None
    async with open_udp(place, own) if protocol == "udp" else open_tcp(place, own, known) as prober:
        prober.pace = RetryTimes.of(rto, tries)
        answers = await _ask_all(prober, endpoints)
        if not answers:
            return NatReport(protocol=protocol, blocked=True, local=own, notes=tuple(case.notes))
        server = next((each for each, answer in answers.items() if answer.other), next(iter(answers)))
        tests = _Tests(case, prober, server, answers)
        await tests.run(rto, tries)
        return tests.report()


# Who to ask


def _listed(servers: Servers) -> list[Endpoint]:
    if isinstance(servers, StunServers):
        return [servers.first]
    # One pair of host and port, or several.
    one = len(servers) == 2 and isinstance(servers[0], str)
    listed: list[Endpoint] = [servers] if one else list(servers)  # type: ignore[list-item, arg-type]
    if not listed:
        raise ValueError("there is no server to ask")
    return listed


async def _look_up(place: Place, servers: Sequence[Endpoint], notes: list[str]) -> list[Endpoint]:
    """Their addresses, those of one family alone."""
    found = dict[Endpoint, Endpoint | OSError]()

    async def one(server: Endpoint) -> None:
        try:
            found[server] = await place.look_up(*server)
        except OSError as error:
            found[server] = error

    async with trio.open_nursery() as nursery:
        for server in servers:
            nursery.start_soon(one, server)
    results = [(server, found[server]) for server in servers]
    notes += [f"no address for {host}: {e.strerror}" for (host, _), e in results if isinstance(e, OSError)]
    addresses = [each for _, each in results if not isinstance(each, OSError)]
    return [each for each in dict.fromkeys(addresses) if (":" in each[0]) == (":" in addresses[0][0])]


async def _own_address(place: Place, endpoints: Sequence[Endpoint], notes: list[str]) -> str | None:
    for endpoint in endpoints:
        try:
            return await place.own_address(endpoint)
        except OSError as error:
            notes.append(f"no way to {endpoint[0]}: {error.strerror}")
    return None


async def _ask_all(prober: Prober, servers: Sequence[Endpoint]) -> dict[Endpoint, Answer]:
    """Ask all servers. Return their answers, up to the first that names a second address."""
    answers = dict[Endpoint, Answer]()

    async def one(server: Endpoint, nursery: trio.Nursery) -> None:
        answer = await (await prober.inside()).ask(server)
        if answer and answer.mapped:
            answers[server] = answer
            if answer.other:
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for server in servers:
            nursery.start_soon(one, server, nursery)
    return {server: answers[server] for server in servers if server in answers}


# What to ask


@define
class _Case:
    """The caller's request, and notes on what could not be found out."""

    protocol: str
    hairpin: bool
    timeouts: bool
    sockets: int
    longest: float
    notes: list[str] = field(factory=list)

    def noted(self, what: str, finding: Observation) -> Behavior | None:
        if finding.note:
            self.notes.append(f"{what}: {finding.note}")
        return finding.behavior


@define
class _Tests:
    case: _Case
    prober: Prober
    server: Endpoint
    answers: Mapping[Endpoint, Answer]
    # (inside, outside) of fresh sockets, in order
    fresh: list[tuple[Endpoint, Endpoint]] = field(factory=list)
    rtt: float = 0.0
    # What one inside endpoint is mapped to towards each
    towards: dict[Endpoint, Endpoint | None] = field(factory=dict)
    filtering: Observation = field(default=Observation(None))
    hairpin: Hairpin | None = None
    udp_timeout: tuple[float, float] | None = None

    @property
    def answer(self) -> Answer:
        return self.answers[self.server]

    @property
    def nat(self) -> bool:
        return any(inside != outside for inside, outside in self.fresh)

    async def run(self, rto: float, tries: int) -> None:
        """Fresh sockets first and one after another, so that nothing else takes ports in between."""
        await self._ports()
        self.prober.pace = RetryTimes.of(rto, tries, self.rtt)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._mapping)
            nursery.start_soon(self._filtering)
            if self.case.hairpin and self.nat:
                nursery.start_soon(self._hairpin)
            if self.case.timeouts and self.nat and isinstance(self.prober, UdpProber):
                nursery.start_soon(self._timeout, self.prober)

    async def _ports(self) -> None:
        for _ in range(self.case.sockets):
            inside = await self.prober.inside()
            answer = await inside.ask(self.server)
            if answer and answer.mapped:
                self.fresh.append((inside.endpoint, answer.mapped))
                self.rtt = max(self.rtt, answer.after)

    async def _mapping(self) -> None:
        """RFC 5780 section 4.3: from one socket, which the tests of filtering must not use."""
        inside = await self.prober.inside()

        async def ask(server: Endpoint) -> None:
            answer = await inside.ask(server)
            self.towards[server] = answer.mapped if answer else None

        async with trio.open_nursery() as nursery:
            for server in _four(self.server, self.answer.other) or self.answers:
                nursery.start_soon(ask, server)

    async def _filtering(self) -> None:
        self.filtering = await self.prober.filtering(self.server, self.answer)

    async def _hairpin(self) -> None:
        self.hairpin = await self.prober.hairpin(self.server)

    async def _timeout(self, prober: UdpProber) -> None:
        self.udp_timeout = await udp_timeout(prober, self.server, self.case.longest)

    # -- what it comes to

    def report(self) -> NatReport:
        case = self.case
        mapping = case.noted("mapping", _mapping(self.towards)) if self.nat else None
        filtering = case.noted("filtering", self._heard_from())
        hairpin = self._hairpin_judged(mapping, filtering)
        self._note_timeouts()
        outside = sorted({host for _, (host, _) in self.fresh})
        if len(outside) > 1:
            case.notes.append(f"there are several outside addresses: {', '.join(outside)}")
        mapped = self.answer.mapped
        return NatReport(
            protocol=case.protocol,
            nat=self.nat,
            mapping=mapping,
            filtering=filtering,
            hairpin=hairpin,
            hairpin_source=self.hairpin.source if self.hairpin else None,
            local=self.fresh[0][0][0] if self.fresh else None,
            mapped=mapped[0] if mapped else None,
            observed=tuple((inside[1], outside[1]) for inside, outside in self.fresh),
            udp_timeout=self.udp_timeout,
            server=self.server,
            rtt=self.rtt,
            notes=tuple(case.notes),
        )

    def _heard_from(self) -> Observation:
        """That nothing comes in from an endpoint tells something only if something could come from there."""
        other = self.answer.other
        if other is None or self.filtering.behavior in (None, Behavior.ENDPOINT_INDEPENDENT):
            return self.filtering
        silent = [each for each in (other, (self.server[0], other[1])) if not self.towards.get(each)]
        if not silent:
            return self.filtering
        host, port = silent[0]
        return Observation(None, f"the server's {host} port {port} does not answer")

    def _hairpin_judged(self, mapping: Behavior | None, filtering: Behavior | None) -> bool | None:
        if not self.case.hairpin or not self.nat:
            return None
        if self.hairpin is None:
            self.case.notes.append("hairpin: the server did not answer")
            return None
        open_to_address = filtering and filtering is not Behavior.ADDRESS_AND_PORT_DEPENDENT
        if self.hairpin.works or open_to_address or mapping is Behavior.ENDPOINT_INDEPENDENT:
            return self.hairpin.works
        self.case.notes.append(
            "hairpin: nothing came, which without mapping and filtering tells nothing"
            if mapping is None or filtering is None
            else "hairpin: filtering hides it, as packets come from other ports than are known"
        )
        return None

    def _note_timeouts(self) -> None:
        if not self.case.timeouts or self.udp_timeout:
            return
        if self.case.protocol == "tcp":
            self.case.notes.append("timeouts: measured by UDP alone")
        elif self.nat:
            self.case.notes.append("timeouts: the server answers to no other port (RESPONSE-PORT)")


def _four(server: Endpoint, other: Endpoint | None) -> list[Endpoint]:
    """Return two addresses with two ports each, or nothing if the server has one address."""
    return [(host, port) for host in (server[0], other[0]) for port in (server[1], other[1])] if other else []


def _mapping(towards: Mapping[Endpoint, Endpoint | None]) -> Observation:
    """Classify the mapping by outside endpoints towards several remote ones (RFC 4787 section 4.1)."""
    seen = [(remote, mapped) for remote, mapped in towards.items() if mapped]
    same = {True: list[bool](), False: list[bool]()}
    for (one, by_one), (two, by_two) in combinations(seen, 2):
        same[one[0] == two[0]].append(by_one == by_two)
    if not all(same[True]):
        return Observation(Behavior.ADDRESS_AND_PORT_DEPENDENT)
    if not same[False]:
        return Observation(None, "only one address of a server answered: it takes two")
    if all(same[False]):
        return Observation(Behavior.ENDPOINT_INDEPENDENT)
    if same[True]:
        return Observation(Behavior.ADDRESS_DEPENDENT)
    return Observation(
        None,
        "it depends on the remote address; whether on the port too, only a server with two ports can tell",
    )
