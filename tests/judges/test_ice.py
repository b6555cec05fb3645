"""Whether two programs that speak ICE (aioice) find a way through two NATs, and which.

ICE does more than send to the address that a STUN server saw: an end learns of another port by the checks
that come from there ("prflx", RFC 8445 section 7.3.1.3) and answers there. `connects` counts on such answers,
so there is no pair of presets of which the two say different things.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import trio

import patchbay
from patchbay.lab.nodes import Device
from patchbay.model.nat import Behavior, Nat, config_of
from patchbay.testing.theory import connects
from tests.judges.coturn import Coturn, open_coturn
from tests.judges.ice import (
    Outcome,
    Servers,
    open_agents,
    run_session,
    stun_alone,
    turn_by_https_port,
    turn_by_udp,
)

# In one worker, because each worker would run all sessions.
pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("ice")]

PAIRS = [(a.value, b.value) for a, b in itertools.combinations_with_replacement(Nat, 2)]
OFFICE = "office"  # the router preset `corporate`: lets out TCP 80 and 443, and UDP 53
OFFICE_PAIRS = [(OFFICE, other) for other in (*(nat.value for nat in Nat), OFFICE)]
NO_TURN, TURN, UDP_ALONE = "without TURN", "with TURN", "with TURN by UDP alone"

AT_ONCE = 40

# (way, name of the first end's router, of the second's)
Outcomes = dict[tuple[str, str, str], Outcome]


def sessions(coturn: Coturn) -> dict[tuple[str, str, str], tuple[Servers, Servers]]:
    """Every session, by its name, with which servers each end asks; first what fails, which takes longest."""
    simple, turn, https = stun_alone(coturn), turn_by_udp(coturn), turn_by_https_port(coturn)
    return {
        (UDP_ALONE, OFFICE, "none"): (turn, turn),
        **{(NO_TURN, *pair): (simple, simple) for pair in sorted(PAIRS, key=theory)},
        **{(TURN, *pair): (turn, turn) for pair in PAIRS},
        **{(TURN, a, b): (https, https if b == OFFICE else turn) for a, b in OFFICE_PAIRS},
    }


def theory(pair: tuple[str, str]) -> bool:
    return connects(Nat(pair[0]), Nat(pair[1]))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Of all sessions; in one lab, and nearly at once."""
    return trio.run(_run_all, tmp_path_factory.mktemp("coturn"))


async def _run_all(folder: Path) -> Outcomes:
    found: Outcomes = {}
    limit = trio.CapacityLimiter(AT_ONCE)
    async with patchbay.open_lab(label="ice") as lab, open_coturn(lab, folder) as coturn:
        # Of each kind one for the first end, and one for the second.
        devices: dict[tuple[int, str], Device] = {}
        async with lab.batch():
            for end, name in itertools.product((0, 1), (*(nat.value for nat in Nat), OFFICE)):
                kind: dict[str, Any] = {"preset": "corporate"} if name == OFFICE else {"nat": name}
                router = await lab.add_router(f"r{end}-{name}", **kind)
                devices[end, name] = await lab.add_device(f"d{end}-{name}", uplink=router)

        async with open_agents(devices) as agents:

            async def run(session: tuple[str, str, str], servers: tuple[Servers, Servers]) -> None:
                ends = [(agents[end, session[1 + end]], servers[end]) for end in (0, 1)]
                async with limit:
                    found[session] = await run_session(" ".join(session), ends[0], ends[1])

            async with trio.open_nursery() as nursery:
                for session, servers in sessions(coturn).items():
                    nursery.start_soon(run, session, servers)
    return found


def pair_id(pair: tuple[str, str]) -> str:
    return "--".join(pair)


@pytest.mark.parametrize("pair", PAIRS, ids=pair_id)
def test_without_a_relay_two_connect_exactly_where_theory_says(
    pair: tuple[str, str], outcomes: Outcomes
) -> None:
    outcome = outcomes[NO_TURN, *pair]
    assert outcome.connected == theory(pair), outcome
    if outcome.connected:
        # Each end's candidate, as the other end knows it.
        assert outcome.remote_types == (seen_as(pair[1]), seen_as(pair[0])), outcome


def seen_as(nat: str) -> str:
    """What kind of candidate a host behind this NAT is for the other end, once they are connected."""
    config = config_of(Nat(nat))
    if config is None:
        return "host"
    return "srflx" if config.mapping is Behavior.ENDPOINT_INDEPENDENT else "prflx"


@pytest.mark.parametrize("pair", PAIRS, ids=pair_id)
def test_with_a_relay_any_two_connect(pair: tuple[str, str], outcomes: Outcomes) -> None:
    outcome = outcomes[TURN, *pair]
    assert outcome.connected, outcome
    # Where there is another way too, the first that was found is taken.
    assert outcome.relayed or theory(pair), outcome


@pytest.mark.parametrize("pair", OFFICE_PAIRS, ids=pair_id)
def test_hosts_that_are_let_out_to_the_https_port_alone_connect_by_a_relay_there(
    pair: tuple[str, str], outcomes: Outcomes
) -> None:
    outcome = outcomes[TURN, *pair]
    assert outcome.connected, outcome
    assert outcome.relayed, outcome


def test_from_there_nothing_connects_by_udp_not_even_to_a_public_host(outcomes: Outcomes) -> None:
    assert not outcomes[UDP_ALONE, OFFICE, "none"].connected
