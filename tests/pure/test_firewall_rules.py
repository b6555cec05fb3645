"""The rules of firewalls: their texts, and what follows from single values."""

import re
import subprocess

import pytest
from attrs import evolve

from patchbay.layout.layout import PolicyLayout
from patchbay.model.firewall import FIREWALL_PRESETS, Firewall, FirewallConfig
from patchbay.model.nat import Nat
from patchbay.plan.firewall import firewall_table
from patchbay.tools.nft import render
from tests.pure.goldens import FOLDER, assert_golden
from tests.pure.nft_text import read_table

POLICIES = {
    **{str(preset): PolicyLayout(firewall=preset) for preset in FIREWALL_PRESETS if preset != "none"},
    "outbound-alone": PolicyLayout(firewall=FirewallConfig(False, "none", (53, 123, 443))),
    "block-icmp-frag-needed": PolicyLayout(block_icmp_frag_needed=True),
    "block-inbound-and-icmp": PolicyLayout(
        Nat.HOME, firewall=Firewall.BLOCK_INBOUND, block_icmp_frag_needed=True
    ),
}


def text_of(policy: PolicyLayout) -> str:
    table = firewall_table(policy)
    assert table and table.name == "filter"
    return render(table)


@pytest.mark.parametrize("case", POLICIES)
def test_the_rules_of(case: str) -> None:
    assert_golden(f"firewall-{case}.nft", text_of(POLICIES[case]))


def test_every_golden_of_a_firewall_belongs_to_a_test() -> None:
    assert {file.stem for file in FOLDER.glob("firewall-*.nft")} == {f"firewall-{case}" for case in POLICIES}


def test_where_everything_passes_there_is_no_table() -> None:
    for firewall in (Firewall.NONE, FirewallConfig()):
        assert firewall_table(PolicyLayout(Nat.HOME, firewall=firewall)) is None


def test_a_firewall_is_the_same_whatever_the_nat_and_its_generation() -> None:
    for firewall in Firewall:
        one = PolicyLayout(Nat.HOME, firewall=firewall)
        assert firewall_table(one) == firewall_table(evolve(one, nat=Nat.NONE, generation=3))


def test_a_preset_and_its_configuration_are_the_same_rules() -> None:
    for preset, config in FIREWALL_PRESETS.items():
        assert firewall_table(PolicyLayout(firewall=preset)) == firewall_table(PolicyLayout(firewall=config))


@pytest.mark.parametrize("case", POLICIES)
def test_answers_pass_before_anything_of_a_firewall_is_dropped(case: str) -> None:
    rules = read_table(text_of(POLICIES[case])).chains["forward"].rules
    drops = [number for number, rule in enumerate(rules) if rule.endswith("drop") and "icmp" not in rule]
    if drops:
        assert rules.index("ct state established,related accept") < min(drops)
    # Packets between two hosts of the LAN are none of a firewall's business.
    assert all(re.search(r'[io]ifname "wan"', rules[number]) for number in drops)


@pytest.mark.parametrize("case", POLICIES)
def test_rules_name_no_ip_version_but_of_icmp(case: str) -> None:
    for rule in read_table(text_of(POLICIES[case])).rules:
        assert not re.search(r"\b(ip|ip6|nfproto)\b", rule), rule


def test_what_the_nat_let_in_is_not_dropped() -> None:
    for preset in (Firewall.BLOCK_INBOUND, Firewall.CORPORATE, Firewall.CAPTIVE_PORTAL):
        rules = read_table(text_of(PolicyLayout(Nat.FULL_CONE, firewall=preset))).chains["forward"].rules
        assert rules.index("ct status dnat accept") < rules.index('iifname "wan" drop')


@pytest.mark.kernel
@pytest.mark.parametrize("case", POLICIES)
def test_a_kernel_accepts_the_rules_of(case: str) -> None:
    done = subprocess.run(
        ["unshare", "-Urn", "nft", "--check", "-f", "-"],
        input=text_of(POLICIES[case]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
