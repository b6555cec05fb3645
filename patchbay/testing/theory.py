"""Predictions from the RFCs: the look of a NAT, and which hosts behind which NATs can connect.

This is what NATs are checked against. It therefore has nothing in common with what makes them: of patchbay it
knows the values that describe a NAT, and nothing else.

The model is that of RFC 4787, with symbols for endpoints. A mapping is known by what it depends on (section
4.1), and packets leave from the mapping towards their destination. What comes in to a mapping is let in by
filtering (section 5). Ports are never shared (REQ-3: no port overloading), so that mappings which depend on
different things differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from patchbay.model.nat import NAT_PRESETS, Behavior, Nat, NatConfig, read_nat
from patchbay.testing.report import NatReport

__all__ = ["Expectation", "connects", "differences", "matrix", "predict"]

_EI, _AD, _APD = Behavior

# As everywhere: a preset by its name or itself, a configuration, or a dict of its fields.
AnyNat = Nat | NatConfig | Mapping[str, Any] | str


@frozen
class Expectation:
    """The report that `classify_nat` must give.

    `hairpin` is None where it cannot be seen. `ports` is the kind of allocation, None where none is promised.
    `block` is the number of ports of a block.
    """

    nat: bool
    mapping: Behavior | None
    filtering: Behavior
    hairpin: bool | None
    ports: str | None
    block: int | None = None

    @property
    def port_preserved(self) -> bool:
        return self.ports == "preserve"


def predict(nat: AnyNat, protocol: str = "udp") -> Expectation:
    """Compute what must be seen of a NAT by one protocol, on an otherwise open path.

    A protocol that does not follow mapping and filtering (`NatConfig.protocols`) is taken for the least that
    RFC 4787 knows: everything depends on address and port, and ports are anything.
    """
    config = _config(nat)
    if config is None:
        return Expectation(False, None, _EI, None, "preserve")
    mapping, filtering = _behavior(config, protocol)
    if protocol not in config.protocols:
        return Expectation(True, mapping, filtering, None, None)
    # Two inside hosts reach each other if hosts behind two such NATs would: a hairpinned packet
    # comes from the outside endpoint (REQ-9a), and is filtered like others.
    visible = connects(config, config, protocol)
    allocation = config.port_allocation
    return Expectation(
        True, mapping, filtering, config.hairpin if visible else None, allocation.kind, allocation.block
    )


def differences(expected: Expectation, found: NatReport) -> list[str]:
    """Return the differences between a report and what is expected."""
    wrong = [
        f"{name}: expected {wanted}, found {got}"
        for name in ("nat", "mapping", "filtering", "hairpin")
        if (wanted := getattr(expected, name)) != (got := getattr(found, name))
    ]
    if found.blocked:
        wrong.append("blocked")
    # A block's ports may be given in order.
    kinds = {"block": ("block", "sequential")}.get(expected.ports or "", (expected.ports,))
    if expected.ports and found.ports not in kinds:
        wrong.append(f"ports: expected {expected.ports}, found {found.ports}: {found.observed}")
    if expected.block and found.port_range and found.port_range[1] - found.port_range[0] >= expected.block:
        wrong.append(f"ports: expected a block of {expected.block}, found {found.observed}")
    return wrong


# Hole punching


@frozen
class _Remote:
    """An endpoint: a host, and a symbol for its port."""

    host: str
    port: tuple[object, ...]


@frozen
class _Side:
    """A host with one inside endpoint, behind a NAT with one outside address, or without a NAT."""

    host: str
    mapping: Behavior
    filtering: Behavior

    def mapped(self, to: _Remote) -> _Remote:
        """Return the outside endpoint of packets to a remote endpoint (section 4.1)."""
        depends_on: dict[Behavior, tuple[object, ...]] = {_EI: (), _AD: (to.host,), _APD: (to.host, to.port)}
        return _Remote(self.host, depends_on[self.mapping])

    def lets_in(self, source: _Remote, at: _Remote, sent_to: Iterable[_Remote]) -> bool:
        """Return whether a packet from `source` to its mapping `at` gets to it (section 5).

        Address-dependent filtering asks whether the inside endpoint has sent to the address, by whatever
        mapping. Address and port-dependent filtering lets in what belongs to a session, which has both
        ends: the remote endpoint, and the mapping by which was sent to it.
        """
        if self.filtering is _EI:
            return True
        if self.filtering is _AD:
            return any(remote.host == source.host for remote in sent_to)
        return any(remote == source and self.mapped(remote) == at for remote in sent_to)


def connects(a: AnyNat, b: AnyNat, protocol: str = "udp") -> bool:
    """Return whether hole punching by a rendezvous server connects a host behind `a` and a host behind `b`,
    two NATs with no NAT in common (RFC 5128 section 3.3, and 3.4 for TCP).

    Both have sent to the server, and learn from the server which endpoint it saw of the other host. Each
    sends to that endpoint repeatedly. An answer to a packet that came in leaves by the packet's mapping, so
    it is enough that one direction works. With TCP the packets are SYNs, of which those
    that get through make a simultaneous open or an ordinary one; the conditions are the same
    (RFC 5382 sections 4.1 to 4.3, REQ-2 and REQ-3), as long as nothing answers with a RST (REQ-4).
    """
    one, two = _side("a", a, protocol), _side("b", b, protocol)
    return _reaches(one, two) or _reaches(two, one)


def _reaches(sender: _Side, receiver: _Side) -> bool:
    server = _Remote("server", ())
    target, source = receiver.mapped(server), sender.mapped(server)
    return receiver.lets_in(sender.mapped(target), target, sent_to=(server, source))


def _side(host: str, nat: AnyNat, protocol: str) -> _Side:
    config = _config(nat)
    # Without a NAT, what others see is the endpoint itself, and nothing is kept out.
    return _Side(host, _EI, _EI) if config is None else _Side(host, *_behavior(config, protocol))


def _config(nat: AnyNat) -> NatConfig | None:
    read = read_nat(nat)
    return read if isinstance(read, NatConfig) else NAT_PRESETS.get(read)


def _behavior(config: NatConfig, protocol: str) -> tuple[Behavior, Behavior]:
    return (config.mapping, config.filtering) if protocol in config.protocols else (_APD, _APD)


def matrix(nats: Iterable[AnyNat], protocol: str = "udp") -> list[list[str]]:
    """Return the table of connecting pairs: a row of headings, then a row of "yes" and "no" for each NAT."""
    listed = list(nats)
    rows = [[_label(a), *("yes" if connects(a, b, protocol) else "no" for b in listed)] for a in listed]
    return [["", *map(_label, listed)], *rows]


def _label(nat: AnyNat) -> str:
    # A configuration goes by its class, though it may be that of a preset.
    nat = nat if isinstance(nat, NatConfig) else read_nat(nat)
    if isinstance(nat, Nat):
        return str(nat)
    return f"{nat.mapping.short}M {nat.filtering.short}F"
