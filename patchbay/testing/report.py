"""Reports about a NAT, in the terms of RFC 4787 and 5382."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import attrs
from attrs import frozen

from patchbay.model.nat import PORTS, Behavior
from patchbay.testing.place import Endpoint

__all__ = ["NatReport"]

# Of ports drawn at random from all, a handful so close to each other is a matter of one in a million.
_BLOCK = 4096
# Others behind the same NAT, and the other probes, take ports in between.
_STEP = 32


@frozen(kw_only=True)
class NatReport:
    """The NAT and the firewall on a path, as one protocol sees them. `str()` is the report in words.

    - `nat`: whether anything is translated. `blocked`: no server answered at all, nothing else is known.
    - `mapping`: None where nothing is translated, or where it is unknown. `filtering`: None where it
      is unknown; without a NAT it is that of the firewall. `notes` say what is unknown, and why.
    - `hairpin`: whether inside hosts reach each other by outside addresses; None where nothing is
      translated, where it was not tried, or where filtering hides it (what comes from a mapping that depends
      on the destination is kept out, if filtering asks for the port). `hairpin_source`: by UDP, the source
      that was seen, an outside one if RFC 4787 REQ-9a is met.
    - `local` and `mapped` are the inside and outside addresses; `observed`, in the order of their making,
      the ports (inside, outside) of fresh sockets.
    - `udp_timeout`: at the first figure of seconds an idle mapping was there, at the second it was gone; the
      second is infinite where nothing was gone at the longest time. None where it was not measured.
    - `rtt`: the longest round trip to the server, in seconds.
    """

    protocol: str
    blocked: bool = False
    nat: bool = False
    mapping: Behavior | None = None
    filtering: Behavior | None = None
    hairpin: bool | None = None
    hairpin_source: Endpoint | None = None
    local: str | None = None
    mapped: str | None = None
    observed: tuple[tuple[int, int], ...] = ()
    udp_timeout: tuple[float, float] | None = None
    server: Endpoint | None = None
    rtt: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def port_preserved(self) -> bool:
        """Return whether most fresh sockets keep their port, because a port that is taken cannot be kept."""
        return 2 * sum(inside == outside for inside, outside in self.observed) > len(self.observed)

    @property
    def port_range(self) -> tuple[int, int] | None:
        """Return the lowest and the highest outside port that was seen."""
        outside = [port for _, port in self.observed]
        return (min(outside), max(outside)) if outside else None

    @property
    def ports(self) -> str:
        """Guess by a handful of sockets: "preserve", "sequential" (each a little above the one before),
        "block" (near to each other, in no order), "random", or "unknown".

        Ports given one after another out of a block look sequential: a block's size cannot be seen.
        """
        if self.port_preserved:
            return "preserve"
        if len(self.observed) < 3 or self.port_range is None:
            return "unknown"
        # Round the end of the range too.
        steps = [(after - before) % PORTS for (_, before), (_, after) in pairwise(self.observed)]
        if all(0 < step <= _STEP for step in steps):
            return "sequential"
        low, high = self.port_range
        return "block" if high - low < _BLOCK else "random"

    @property
    def name(self) -> str:
        """Return the finding in the words of the field."""
        if self.blocked:
            return "blocked: no answer from any server"
        words = [self._mapping(), self._filtering()]
        if self.nat:
            words += [self._ports(), self._hairpin()]
        if self.udp_timeout:
            words.append(self.lifetime)
        return ", ".join(filter(None, words))

    def __str__(self) -> str:
        return self.name

    def _mapping(self) -> str:
        if not self.nat:
            return "no NAT"
        return f"{self.mapping} mapping" if self.mapping else "mapping unknown"

    def _filtering(self) -> str:
        return f"{self.filtering} filtering" if self.filtering else "filtering unknown"

    def _ports(self) -> str:
        words = {"preserve": "ports preserved", "block": "ports of a block", "unknown": ""}
        return words.get(self.ports, f"{self.ports} ports")

    def _hairpin(self) -> str:
        return {True: "hairpin", False: "no hairpin", None: ""}[self.hairpin]

    @property
    def lifetime(self) -> str:
        """Return `udp_timeout` in words; empty if it was not measured."""
        if self.udp_timeout is None:
            return ""
        low, high = self.udp_timeout
        bounds = f"more than {low:.0f} s" if math.isinf(high) else f"{low:.1f} to {high:.1f} s"
        return f"idle UDP mappings last {bounds}"

    def as_dict(self) -> dict[str, Any]:
        """Return all fields and what is derived from them, for JSON: null in place of an infinite number."""
        fields = attrs.asdict(self, recurse=False)
        if self.udp_timeout:
            fields["udp_timeout"] = [None if math.isinf(bound) else bound for bound in self.udp_timeout]
        derived = ("name", "port_preserved", "ports", "port_range")
        return {**fields, **{name: getattr(self, name) for name in derived}}
