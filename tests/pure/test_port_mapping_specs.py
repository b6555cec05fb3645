"""Which routers can map ports for their hosts, and what their server follows."""

from __future__ import annotations

import pytest

from patchbay.change.policies import FlushNat, SetFirewall, SetNat
from patchbay.config.lab_file import draft_lab
from patchbay.errors import SpecError
from patchbay.layout.allocate import lay_out
from patchbay.layout.layout import Layout
from patchbay.model.firewall import Firewall
from patchbay.model.nat import Nat
from patchbay.plan.change import between
from patchbay.tools.commands import EndService, StartService
from tests.pure.labs import layout_of

LAB = layout_of("""
[[router]]
name = "home"
preset = "home"
port_mapping = true
""")


@pytest.mark.parametrize(
    ("router", "message"),
    [
        ({"nat": "none"}, "the router has no NAT, whose ports could be mapped; accepted: one with a `nat`"),
        ({"ip_support": "v6-only"}, "the router has no IPv4 (ip_support), whose ports could be mapped"),
    ],
    ids=["no NAT", "no IPv4"],
)
def test_a_router_without_ports_to_map_is_refused(router: dict[str, str], message: str) -> None:
    table = {"router": [{"name": "home", "preset": "home", "port_mapping": True, **router}]}
    with pytest.raises(SpecError) as caught:
        lay_out(draft_lab(table, "lab.toml"))
    assert [problem.message for problem in caught.value.problems] == [message]


def services(old: Layout, new: Layout) -> list[tuple[type, tuple[str, ...]]]:
    commands = [command for stage in between(old, new).stages for command in stage]
    return [(type(c), c.service.args) for c in commands if isinstance(c, StartService | EndService)]


def test_a_flush_of_the_nat_restarts_the_server_without_mappings() -> None:
    ((kind, args),) = services(LAB, FlushNat("home").apply(LAB))
    assert kind is StartService
    assert args[-2:] == ("--generation", "1")


def test_a_change_of_the_firewall_leaves_the_server_alone() -> None:
    assert services(LAB, SetFirewall("home", Firewall.NONE).apply(LAB)) == []


def test_a_router_that_loses_its_nat_loses_the_server_and_gets_it_back() -> None:
    without = SetNat("home", Nat.NONE).apply(LAB)
    assert [kind for kind, _ in services(LAB, without)] == [EndService]
    assert [kind for kind, _ in services(without, SetNat("home", Nat.HOME).apply(without))] == [StartService]
