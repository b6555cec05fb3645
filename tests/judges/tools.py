"""Programs that tell what kind of NAT they are behind, what their words mean, and what they would say.

What each can tell apart of the nine classes, by how it asks (all of it read in their sources):

natdiscovery (coturn, RFC 5780) sends from one port to the server's first address, to its second, and to
    the second's other port, and compares the mappings: all three kinds of mapping. Then, from a new port
    that has talked to one endpoint only, it asks for answers from elsewhere: all three kinds of
    filtering. All nine. It sends everything once and waits 3 s.
stun (Vovida, RFC 3489) compares the mappings towards the server's two addresses, and asks for answers from
    elsewhere on a second port, all at once. Four: of a mapping it tells only whether it depends on something,
    and then says nothing of the filtering. Each request is sent up to 7 times, 150 ms apart.
pystun3 (RFC 3489, its flow chart) asks first for an answer from the other address and port, and calls it
    "Full Cone" if one comes, whatever the mapping. Four, but other ones. It does all of it from one port:
    before it asks for an answer from another port it has sent to the second address, but that is the one
    it then asks, so what it says of filtering is right. Each request is sent 4 times, 2 s apart.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from attrs import frozen

from patchbay.model.nat import Behavior, NatConfig

EI, _, APD = Behavior
PRESERVE = "preserve"


@frozen
class Verdict:
    """What a program says. None: it does not say. `mapping` and `filtering` are EI, AD, APD, or "dependent"
    where it does not say on what.
    """

    nat: bool = True
    mapping: str | None = None
    filtering: str | None = None
    hairpin: bool | None = None
    preserves: bool | None = None


@frozen
class Tool:
    """`argv` by the own address and the server's, how to `read` what it prints, what is `expected` of a NAT
    (None: of no NAT), and how many of the nine `classes` it can tell apart.
    """

    argv: Callable[[str, str], list[str]]
    read: Callable[[str], Verdict]
    expected: Callable[[NatConfig | None], Verdict]
    classes: int

    def verdict(self, out: str) -> Verdict:
        try:
            return self.read(out)
        except (KeyError, ValueError) as error:
            raise AssertionError(f"words that nobody knows: {out}") from error


_RFC5780 = {"Endpoint Independent": "EI", "Address Dependent": "AD", "Address and Port Dependent": "APD"}


def _read_natdiscovery(out: str) -> Verdict:
    said = {
        what: _RFC5780[how] for how, what in re.findall(r"^NAT with (.+) (Mapping|Filtering)!$", out, re.M)
    }
    return Verdict("No NAT!" not in out, said["Mapping"], said["Filtering"])


def _expect_of_natdiscovery(nat: NatConfig | None) -> Verdict:
    if nat is None:
        return Verdict(nat=False, mapping="EI", filtering="EI")
    return Verdict(mapping=nat.mapping.short, filtering=nat.filtering.short)


def _read_hairpin(out: str) -> Verdict:
    timeouts = out.count("STUN receive timeout..")
    assert (timeouts == 0) == ("maybe a successful hairpinning" in out), out
    return Verdict(hairpin=timeouts == 0)


def _expect_of_hairpin(nat: NatConfig | None) -> Verdict:
    """It sends from one socket to what another is mapped to, and that one has never sent to an outside
    address of its own NAT. What comes by hairpin is filtered too. Without a NAT it talks to itself.
    """
    return Verdict(hairpin=nat is None or (nat.hairpin and nat.filtering is EI))


_STUN = {
    "Independent Mapping, Independent Filter": ("EI", "EI"),
    "Independent Mapping, Address Dependent Filter": ("EI", "AD"),
    "Independent Mapping, Port Dependent Filter": ("EI", "APD"),
    "Dependent Mapping": ("dependent", None),
}


def _read_stun(out: str) -> Verdict:
    (words,) = re.findall(r"^Primary: (.+?)\s*$", out, re.M)
    if words == "Open":
        return Verdict(nat=False)
    kind, port, hairpin = words.rsplit(", ", 2)
    mapping, filtering = _STUN[kind]
    said_hairpin = {"will hairpin": True, "no hairpin": False}[hairpin]
    return Verdict(True, mapping, filtering, said_hairpin, port == "preserves ports")


def _expect_of_stun(nat: NatConfig | None) -> Verdict:
    if nat is None:
        return Verdict(nat=False)
    mapping, filtering = ("EI", nat.filtering.short) if nat.mapping is EI else ("dependent", None)
    # It sends to what it is mapped to itself: it has sent to that address, and to that port; it comes from
    # there too, unless it is mapped to another one towards it.
    let_in = nat.mapping is EI or nat.filtering is not APD
    return Verdict(True, mapping, filtering, nat.hairpin and let_in, str(nat.port_allocation) == PRESERVE)


_PYSTUN3 = {
    "Open Internet": Verdict(nat=False),
    "Full Cone": Verdict(filtering="EI"),
    "Restric NAT": Verdict(mapping="EI", filtering="AD"),
    "Restric Port NAT": Verdict(mapping="EI", filtering="APD"),
    "Symmetric NAT": Verdict(mapping="dependent"),
}


def _read_pystun3(out: str) -> Verdict:
    (words,) = re.findall(r"^NAT Type: (.+)$", out, re.M)
    return _PYSTUN3[words]


def _expect_of_pystun3(nat: NatConfig | None) -> Verdict:
    if nat is None:
        return Verdict(nat=False)
    if nat.filtering is EI:
        return Verdict(filtering="EI")
    if nat.mapping is not EI:
        return Verdict(mapping="dependent")
    return Verdict(mapping="EI", filtering=nat.filtering.short)


def _natdiscovery(*options: str) -> Callable[[str, str], list[str]]:
    # Without -L it does not see that its address is the one that the server sees.
    return lambda own, server: ["turnutils_natdiscovery", *options, "-L", own, server]


TOOLS = {
    # Slowest first.
    "pystun3": Tool(
        # Without -i it calls a public host a "Full Cone".
        lambda own, server: [sys.executable, "-m", "stun.cli", "-i", own, "-H", server],
        _read_pystun3,
        _expect_of_pystun3,
        classes=4,
    ),
    "natdiscovery": Tool(_natdiscovery("-m", "-f"), _read_natdiscovery, _expect_of_natdiscovery, classes=9),
    "natdiscovery-hairpin": Tool(_natdiscovery("-H"), _read_hairpin, _expect_of_hairpin, classes=1),
    "stun": Tool(lambda _, server: ["stun", server], _read_stun, _expect_of_stun, classes=4),
}
# Those that ask about hairpins.
HAIRPIN_TOOLS = ("natdiscovery-hairpin", "stun")
