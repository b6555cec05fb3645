"""Router presets: each row of the table of docs/behaviour.md, in the layout that it leads to."""

from ipaddress import IPv4Network, ip_network
from typing import Any

import pytest
from attrs import evolve, frozen

from patchbay.layout.allocate import empty_layout, extend
from patchbay.layout.layout import Layout, Network, RouterLayout
from patchbay.model.firewall import Firewall, FirewallConfig
from patchbay.model.lab import IpSupport, LabSpec, NatV6, RouterPreset, RouterSpec
from patchbay.model.nat import Nat, NatConfig
from patchbay.model.presets import resolve
from tests.pure.labs import problems_of

PRIVATE, CARRIER, PUBLIC = map(ip_network, ("10.0.0.0/8", "100.64.0.0/10", "55.0.0.0/8"))
ULA, PUBLIC_V6 = map(ip_network, ("fd00::/32", "2d00::/32"))


@frozen
class Row:
    nat: str
    firewall: str
    ip_support: str
    below: tuple[Network, ...]


HOME = Row("home", "block-inbound", "dual-stack", (PRIVATE, ULA))
DATACENTER = Row("none", "none", "dual-stack", (PUBLIC, PUBLIC_V6))
ISP_V4 = Row("none", "none", "v4-only", (PUBLIC,))
TABLE = {
    "home": HOME,
    "datacenter": DATACENTER,
    "public": DATACENTER,
    "isp-v4": ISP_V4,
    "public-v4": ISP_V4,
    "mobile": Row("cgnat", "block-inbound", "dual-stack", (CARRIER, PUBLIC_V6)),
    "isp-cgnat": Row("cgnat", "none", "dual-stack", (CARRIER, PUBLIC_V6)),
    "corporate": Row("corporate", "corporate", "dual-stack", (PRIVATE, ULA)),
    "hotel": Row("corporate", "captive-portal", "v4-only", (PRIVATE,)),
    "cloud": Row("cloud-nat", "none", "dual-stack", (PRIVATE, ULA)),
}
ALIASES = {"public": "datacenter", "public-v4": "isp-v4"}


def laid_out(router: RouterSpec) -> tuple[Layout, RouterLayout]:
    layout = extend(empty_layout(), LabSpec(routers=(router,)))
    found = layout.router(router.name)
    assert found
    return layout, found


def below(router: RouterSpec) -> tuple[Network, ...]:
    """The pools that the networks below a router are from."""
    return tuple(
        next(
            pool
            for pool in (PRIVATE, CARRIER, PUBLIC, ULA, PUBLIC_V6)
            if network.version == pool.version and network.subnet_of(pool)  # type: ignore[arg-type]  # of one version
        )
        for network in laid_out(router)[1].networks
    )


def test_the_table_has_all_presets_but_those_of_nat64() -> None:
    assert {*TABLE} == {*RouterPreset}


@pytest.mark.parametrize("preset", TABLE)
def test_a_router_with_the_preset_is_the_row_of_the_table(preset: str) -> None:
    row, spec = TABLE[preset], RouterSpec("r", RouterPreset(preset))
    layout, router = laid_out(spec)
    policy = layout.policy(router)
    assert (policy.nat, policy.firewall) == (row.nat, row.firewall)
    assert (policy.nat_v6, router.ip_support) == (NatV6.NONE, row.ip_support)
    assert below(spec) == row.below
    assert (policy.block_icmp_frag_needed, policy.generation, policy.pool) == (False, 0, ())


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_equals_its_preset(alias: str) -> None:
    one, other = (RouterSpec("r", RouterPreset(name)) for name in (alias, ALIASES[alias]))
    assert resolve(one) == resolve(other) and laid_out(one)[0] == laid_out(other)[0]


@pytest.mark.parametrize("preset", TABLE)
def test_what_is_below_is_unknown_above_where_ipv4_is_translated_and_only_there(preset: str) -> None:
    _, router = laid_out(RouterSpec("r", RouterPreset(preset)))
    assert router.bounds(4) == (TABLE[preset].nat != "none")
    assert not router.bounds(6)
    assert {route.prefix for route in router.routes} == {
        network for network in router.networks if network.version == 6 or TABLE[preset].nat == "none"
    }


CUSTOM = NatConfig(port_allocation="random", hairpin=True)
OVERRIDES: dict[str, Any] = {
    "nat": Nat.FULL_CONE,
    "nat of its own kind": CUSTOM,
    "no nat": Nat.NONE,
    "firewall": Firewall.CAPTIVE_PORTAL,
    "firewall of its own kind": FirewallConfig(outbound_tcp=(443,)),
    "no firewall": Firewall.NONE,
    "ip_support": IpSupport.V6_ONLY,
}


@pytest.mark.parametrize("preset", TABLE)
@pytest.mark.parametrize("case", OVERRIDES)
def test_a_single_value_overrides_the_preset_and_leaves_the_rest(preset: str, case: str) -> None:
    key = case.removeprefix("no ").split(" ")[0]
    plain = RouterSpec("r", RouterPreset(preset))
    wished = evolve(plain, **{key: OVERRIDES[case]})
    assert resolve(wished) == evolve(resolve(plain), **{key: OVERRIDES[case]})
    assert getattr(resolve(wished), key) is OVERRIDES[case]


@pytest.mark.parametrize("preset", TABLE)
def test_with_another_nat_the_addresses_below_stay_those_of_the_preset(preset: str) -> None:
    for nat in (Nat.NONE, Nat.HOME, Nat.CGNAT, CUSTOM):
        assert below(RouterSpec("r", RouterPreset(preset), nat=nat)) == TABLE[preset].below


@pytest.mark.parametrize(
    ("nat", "pools"),
    [
        (None, (PUBLIC, PUBLIC_V6)),
        (Nat.NONE, (PUBLIC, PUBLIC_V6)),
        (Nat.HOME, (PRIVATE, ULA)),
        (Nat.CORPORATE, (PRIVATE, ULA)),
        (Nat.CGNAT, (CARRIER, ULA)),
        (CUSTOM, (PRIVATE, ULA)),
    ],
    ids=str,
)
def test_without_a_preset_the_addresses_below_follow_from_the_nat(
    nat: Nat | NatConfig | None, pools: tuple[Network, ...]
) -> None:
    assert below(RouterSpec("r", nat=nat)) == pools[:1]
    assert below(RouterSpec("r", nat=nat, ip_support=IpSupport.DUAL_STACK)) == pools


def test_a_carriers_networks_are_one_after_another_and_may_be_used_behind_each_carrier_again() -> None:
    carriers = tuple(RouterSpec(f"c{number}", RouterPreset.MOBILE) for number in range(3))
    layout = extend(empty_layout(), LabSpec(routers=carriers))
    found = [layout.forwarders[f"router:{carrier.name}"].networks[0] for carrier in carriers]
    assert list(map(str, found)) == ["100.64.0.0/18", "100.64.64.0/18", "100.64.128.0/18"]
    wished = tuple(evolve(carrier, downstream_cidr=IPv4Network("100.64.0.0/10")) for carrier in carriers)
    layout = extend(empty_layout(), LabSpec(routers=wished))
    assert {layout.forwarders[f"router:{each.name}"].networks[0] for each in wished} == {CARRIER}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preset", "mobile-v6"),
        ("preset", "isp-v6"),
        ("nat_v6", "nat64"),
        ("nat_v6", "nptv6"),
        ("nat_v6", "masquerade"),
    ],
    ids=str,
)
def test_a_word_of_a_later_version_is_reported_as_such(key: str, value: str) -> None:
    told = f"'{value}' is not available in this version of patchbay"
    assert problems_of(f'[[router]]\nname = "r"\n{key} = "{value}"') == [(f"router[0].{key}", told)]
