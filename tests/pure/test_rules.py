"""Rulesets: the text of each kind, and nft's own word that it can be read."""

import subprocess

import pytest

from patchbay.addressing.layout import RouterLayout
from patchbay.plan.rules import conntrack_timeouts, ruleset
from patchbay.tools.nft import Chain, Table, render
from tests.pure.goldens import assert_golden
from tests.pure.labs import layout_of

ROUTERS = {
    "home": 'preset = "home"',
    "home-nat": 'nat = "home"',
    "block-inbound": 'firewall = "block-inbound"\nip_support = "dual-stack"',
    "block-inbound-ipv6": 'firewall = "block-inbound"\nip_support = "v6-only"',
}


def router(traits: str) -> RouterLayout:
    found = layout_of(f'[[router]]\nname = "r"\n{traits}').router("r")
    assert found
    return found


@pytest.mark.parametrize("kind", ROUTERS)
def test_the_ruleset_of(kind: str) -> None:
    assert_golden(f"{kind}.nft", ruleset(router(ROUTERS[kind])) or "")


@pytest.mark.kernel
@pytest.mark.parametrize("kind", ROUTERS)
def test_nft_accepts_the_ruleset_of(kind: str) -> None:
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "nft", "--check", "--file", "-"],
        input=ruleset(router(ROUTERS[kind])),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("traits", ["", 'preset = "datacenter"'], ids=["no preset", "datacenter"])
def test_a_router_that_neither_translates_nor_filters_has_no_rules(traits: str) -> None:
    assert ruleset(router(traits)) is None
    assert conntrack_timeouts(router(traits)) == ()


def test_a_nat_for_ipv4_is_none_where_there_is_no_ipv4() -> None:
    """A timeout of conntrack's can only be set once some rule has brought conntrack in."""
    six = router('nat = "home"\nip_support = "v6-only"')
    assert ruleset(six) is None
    assert conntrack_timeouts(six) == ()


def test_the_exchange_has_no_rules() -> None:
    assert ruleset(layout_of("").ix) is None


def test_mappings_of_a_home_router_last_as_long_as_documented() -> None:
    assert dict(conntrack_timeouts(router('preset = "home"'))) == {
        "udp_timeout": 30,
        "udp_timeout_stream": 300,
        "tcp_timeout_established": 7440,
    }


def test_a_ruleset_translates_to_the_routers_own_address_on_its_uplink() -> None:
    home = router('preset = "home"')
    assert home.uplink
    assert f"snat ip to {home.uplink.addresses[0].ip}\n" in (ruleset(home) or "")


def test_tables_are_written_one_after_another() -> None:
    chain = Chain("c", "filter", "forward", "filter", ("accept",))
    text = render((Table("one", (chain,)), Table("two", ())))
    assert text.count("table inet ") == text.count("{\n") - 1 == 2
    assert "\t\ttype filter hook forward priority filter; policy accept;\n\t\taccept\n\t}\n" in text
