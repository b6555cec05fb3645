"""What theory says of NATs, against what is known of them otherwise."""

from __future__ import annotations

import ast
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from patchbay.errors import SpecError
from patchbay.model.nat import Behavior, Nat, NatConfig, PortAllocation
from patchbay.testing import NatReport, connects, differences, matrix, predict, theory

EI, AD, APD = Behavior
ALL = [NatConfig(mapping, filtering) for mapping, filtering in product(Behavior, Behavior)]
nats = st.sampled_from([*Nat, *ALL])
protocols = st.sampled_from(["udp", "tcp"])


@given(nats, nats, protocols)
def test_connecting_is_symmetric(a: Nat | NatConfig, b: Nat | NatConfig, protocol: str) -> None:
    assert connects(a, b, protocol) == connects(b, a, protocol)


@given(nats, nats, protocols)
def test_what_is_no_nat_and_what_lets_everybody_in_connects_to_all(
    a: Nat | NatConfig, b: Nat | NatConfig, protocol: str
) -> None:
    assert connects(Nat.NONE, a, protocol)
    assert connects(Nat.FULL_CONE, a, protocol)


@given(st.sampled_from(ALL), st.sampled_from(ALL), st.sampled_from(["mapping", "filtering"]))
def test_to_open_a_nat_up_costs_no_connection(a: NatConfig, b: NatConfig, field: str) -> None:
    opened: Any = {field: EI}
    assert connects(evolve(a, **opened), b) or not connects(a, b)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        # RFC 5128 section 3.3, and the figures of Ford, Srisuresh, Kegel: Peer-to-Peer Communication
        # Across Network Address Translators (2005): cones connect, symmetric ones to each other do not.
        (Nat.HOME, Nat.HOME, True),
        (Nat.HOME, Nat.ADDRESS_RESTRICTED, True),
        (Nat.HOME, Nat.CORPORATE, False),
        (Nat.ADDRESS_RESTRICTED, Nat.CORPORATE, True),
        (Nat.ADDRESS_RESTRICTED, Nat.SYMMETRIC_PREDICTABLE, True),
        (Nat.CORPORATE, Nat.CORPORATE, False),
        (Nat.CORPORATE, Nat.CLOUD_NAT, False),
        (Nat.CGNAT, Nat.CORPORATE, True),
        (Nat.CGNAT, Nat.CGNAT, True),
        # Open to an address, though the mapping is another one there.
        (NatConfig(APD, AD), NatConfig(APD, APD), True),
        # A new mapping towards the peer, whom neither of both expects to come from another port.
        (NatConfig(AD, APD), NatConfig(EI, APD), False),
        (NatConfig(AD, APD), NatConfig(AD, APD), False),
    ],
    ids=str,
)
def test_the_classic_facts(a: Nat | NatConfig, b: Nat | NatConfig, expected: bool) -> None:
    assert connects(a, b) is expected
    assert connects(a, b, "tcp") is expected


@given(st.sampled_from(ALL), st.sampled_from(ALL))
def test_it_fails_only_if_both_ask_for_the_port_and_one_of_them_changes_it(
    a: NatConfig, b: NatConfig
) -> None:
    """What the model comes to, in a sentence."""
    asked = a.filtering is APD and b.filtering is APD
    assert connects(a, b) == (not asked or (a.mapping is EI and b.mapping is EI))


def test_a_protocol_left_out_of_a_nat_is_the_least_that_there_is() -> None:
    cone = NatConfig(EI, EI, hairpin=True, protocols=("udp",))
    assert connects(cone, Nat.CORPORATE, "udp")
    assert not connects(cone, Nat.CORPORATE, "tcp")
    assert (predict(cone, "tcp").filtering, predict(cone, "tcp").ports) == (APD, None)


def test_hairpin_is_seen_unless_filtering_hides_it() -> None:
    assert predict(NatConfig(EI, APD, hairpin=True)).hairpin is True
    assert predict(NatConfig(APD, AD, hairpin=True)).hairpin is True
    assert predict(NatConfig(APD, AD)).hairpin is False
    assert predict(NatConfig(APD, APD, hairpin=True)).hairpin is None
    assert predict(Nat.NONE).hairpin is None


def test_ports_are_those_of_the_allocation() -> None:
    assert (predict(Nat.HOME).ports, predict(Nat.HOME).port_preserved) == ("preserve", True)
    assert (predict(Nat.NONE).ports, predict(Nat.NONE).port_preserved) == ("preserve", True)
    assert (predict(Nat.CORPORATE).ports, predict(Nat.CORPORATE).port_preserved) == ("random", False)
    assert (predict(Nat.CGNAT).ports, predict(Nat.CGNAT).block) == ("block", 1008)


def test_differences_name_what_is_wrong() -> None:
    expected = predict(NatConfig(port_allocation=PortAllocation("block", 8)))
    good = NatReport(
        protocol="udp", nat=True, mapping=EI, filtering=APD, hairpin=False, observed=((1, 2000), (5, 2003))
    )
    observed = ((1, 2000), (5, 2003), (7, 2004))
    assert differences(expected, evolve(good, observed=observed)) == []
    assert len(differences(expected, evolve(good, observed=(*observed, (9, 3000))))) == 1
    wrong = NatReport(protocol="udp", nat=True, mapping=AD, filtering=None, hairpin=True, blocked=True)
    assert [line.split(":")[0] for line in differences(predict(Nat.HOME), wrong)] == [
        "mapping",
        "filtering",
        "hairpin",
        "blocked",
        "ports",
    ]


def test_the_matrix_is_made_for_printing() -> None:
    assert matrix([Nat.NONE, Nat.CORPORATE, NatConfig(APD, AD)]) == [
        ["", "none", "corporate", "APDM ADF"],
        ["none", "yes", "yes", "yes"],
        ["corporate", "yes", "no", "yes"],
        ["APDM ADF", "yes", "yes", "yes"],
    ]


def test_theory_knows_nothing_of_what_makes_nats() -> None:
    tree = ast.parse(Path(theory.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {module for module in imported if module and module.startswith("patchbay")}
    assert ours == {"patchbay.model.nat", "patchbay.testing.report"}


def test_a_nat_is_accepted_in_every_form_that_a_router_accepts() -> None:
    fields = {"mapping": "endpoint-independent", "filtering": "endpoint-independent"}
    assert connects("home", "home")
    assert connects({**fields, "hairpin": True}, "corporate")
    config = Nat.CGNAT.config
    assert config
    assert predict("cgnat") == predict(Nat.CGNAT) == predict(config)


@pytest.mark.parametrize("wrong", ["hoem", None, 1, {"maping": "address-dependent"}, {"mapping": "eim"}])
def test_what_is_no_nat_is_refused(wrong: object) -> None:
    with pytest.raises(SpecError):
        connects(wrong, "none")  # type: ignore[arg-type]
