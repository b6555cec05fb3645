"""What the pure tests share: layouts from TOML, and random valid labs."""

import os
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from ipaddress import IPv4Network
from random import Random
from typing import Any

from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st

from patchbay.change.nodes import Add
from patchbay.config.lab_file import draft_lab
from patchbay.errors import SpecError
from patchbay.layout.allocate import empty_layout, lay_out
from patchbay.layout.layout import Layout, RouterLayout
from patchbay.model.firewall import Firewall, FirewallConfig
from patchbay.model.lab import (
    DeviceSpec,
    IfaceSpec,
    IpSupport,
    LabSpec,
    RegionLinkSpec,
    RegionSpec,
    RouterPreset,
    RouterSpec,
)
from patchbay.model.link import LINK_PRESETS, Impairment, LinkCondition
from patchbay.model.names import NsName, env_name, iface_name_problem, node_name_problem
from patchbay.model.nat import Nat, NatConfig
from patchbay.model.presets import resolve
from patchbay.tools.service import Service

# The same few examples in every run; PATCHBAY_EXAMPLES=5000 looks at so many others.
_WISHED = os.environ.get("PATCHBAY_EXAMPLES")
QUICK = settings(max_examples=int(_WISHED or 20), derandomize=not _WISHED, deadline=None, database=None)

# Some that are no preset.
NATS = (
    *Nat,
    NatConfig("address-dependent", "address-dependent", "sequential", True, 2, 3, 4),
    NatConfig("address-and-port-dependent", "endpoint-independent", "random", protocols=("udp",)),
    NatConfig(port_allocation="block:4096", udp_timeout=2),
    # Of which each host after the first needs one more outside address.
    NatConfig(port_allocation="block:64512"),
)
FIREWALLS = (*Firewall, FirewallConfig(True, "none", (53, 443)), FirewallConfig(outbound_tcp=(80,)))

# What every home is, so that the same addresses turn up in several routing domains.
HOME_LAN = IPv4Network("192.168.1.0/24")


@cache  # many tests, and cases of a test, start from one lab; nothing changes a layout in place
def layout_of(toml: str) -> Layout:
    """The layout of a lab file."""
    return lay_out(draft_lab(tomllib.loads(toml)))


# One of everything that can be changed.
HOME_AND_REGIONS = layout_of("""
[region.eu]
latencies = { us = 40 }
[region.us]
[[router]]
name = "home"
preset = "home"
[device.laptop.eth0]
gateway = "home"
link = "wifi"
""")


def router_of(layout: Layout, name: str) -> RouterLayout:
    """A router that is there."""
    found = layout.router(name)
    assert found
    return found


def region_of(layout: Layout, name: str) -> RouterLayout:
    """A region that is there."""
    found = layout.region(name)
    assert found
    return found


def problems_of(toml: str) -> list[tuple[str, str]]:
    """(path, message) of each problem of a lab file."""
    try:
        layout_of(toml)
    except SpecError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


def a_relay(name: str, ns: str = "a") -> Service:
    """A service that plans could have."""
    return Service(NsName(ns), name, "relay", ("--far", name), kind="relay", key=("link", name), title=name)


def additions(spec: LabSpec) -> Iterator[Add]:
    """The parts of a lab, added singly."""
    for number, region in enumerate(spec.regions, 1):
        known = {each.name for each in spec.regions[:number]}
        links = tuple(link for link in spec.region_links if region.name in (link.a, link.b))
        links = tuple(link for link in links if {link.a, link.b} <= known)
        yield Add(LabSpec(regions=(region,), region_links=links))
    for router in spec.routers:
        yield Add(LabSpec(routers=(router,)))
    for device in spec.devices:
        yield Add(LabSpec(devices=(device,)))


def one_by_one(spec: LabSpec) -> list[Layout]:
    """The layouts of a lab to which the parts of `spec` are added singly."""
    layouts = [empty_layout()]
    for change in additions(spec):
        layouts.append(change.apply(layouts[-1]))
    return layouts


# Random labs. Hypothesis chooses their sizes and a seed: drawing each choice from it takes ten times as long.

_LETTERS = "abz019 -_.'\"\\#$*:%éß中\N{SNOWMAN}\N{GRINNING FACE}"
# Words that commands, the kernel or the plan itself use for something.
_NODE_WORDS = [
    "lo",
    "all",
    "default",
    "lan",
    "wan",
    "dev",
    "if10",
    "region-eu",
    "eu",
    "node",
    "measuring-host-1",
]
_IFACE_WORDS = ["eth0", "wlan0", "lan", "wan", "eth0.5", "if10", "dev", "név", "a" * 15]


def _text(rng: Random, words: list[str], longest: int) -> str:
    chosen = rng.choice(words)
    return chosen if rng.random() < 0.4 else "".join(rng.choices(_LETTERS, k=rng.randint(1, longest)))


def _names(rng: Random, number: int) -> list[str]:
    """Names of nodes that do not collide."""
    names: dict[str, str] = {}
    while len(names) < number:
        name = _text(rng, _NODE_WORDS, 30)
        if node_name_problem(name) is None and name != "ix":
            names.setdefault(env_name(name), name)
    return list(names.values())


def _maybe(rng: Random, values: Iterable[Any]) -> Any:
    return rng.choice([None, *values])


def _mtu(rng: Random) -> int | None:
    return rng.choice([None, None, 1280, 1400, 1500, 9000])


def _router(rng: Random, name: str, above: list[RouterSpec], regions: list[str]) -> RouterSpec:
    upstream = _maybe(rng, above)
    router = RouterSpec(
        name=name,
        preset=_maybe(rng, RouterPreset),
        upstream=upstream.name if upstream else None,
        region=None if upstream else _maybe(rng, regions),
        nat=_maybe(rng, NATS),
        firewall=_maybe(rng, FIREWALLS),
        ip_support=_maybe(rng, IpSupport),
        mtu=_mtu(rng),
        block_icmp_frag_needed=rng.random() < 0.2,
    )
    traits = resolve(router)
    if upstream and not {*traits.ip_support.versions} & {*resolve(upstream).ip_support.versions}:
        return _router(rng, name, above, regions)
    may_have_home_lan = traits.nat is not Nat.NONE and 4 in traits.ip_support.versions
    if may_have_home_lan and not (upstream and upstream.downstream_cidr) and rng.random() < 0.5:
        return evolve(router, downstream_cidr=HOME_LAN)
    return router


def _device(rng: Random, name: str, routers: list[RouterSpec]) -> DeviceSpec:
    found = {_text(rng, _IFACE_WORDS, 8) for _ in range(rng.randint(1, 3))}
    names = sorted(name for name in found if iface_name_problem(name) is None) or ["eth0"]
    ifaces: dict[str, IfaceSpec] = {}
    home = None
    for iface in names:
        router = rng.choice(routers)
        if router.downstream_cidr and home is not None:
            router = home  # one device in two networks of the same addresses is refused
        home = router if router.downstream_cidr else home
        ifaces[iface] = IfaceSpec(router.name)
    return DeviceSpec(name, ifaces, _maybe(rng, names), _mtu(rng))


def random_lab(seed: int, regions: int, routers: int, devices: int) -> LabSpec:
    """A valid lab: routers in trees, presets, regions, devices on several routers, awkward names."""
    rng = Random(seed)
    region_names = _names(rng, regions)
    names = _names(rng, routers + devices)
    made: list[RouterSpec] = []
    for name in names[:routers]:
        made.append(_router(rng, name, made, region_names))
    return LabSpec(
        regions=tuple(map(RegionSpec, region_names)),
        routers=tuple(made),
        devices=tuple(_device(rng, name, made) for name in names[routers:]),
    )


# What a direction of a link may do; each is possible by itself, and beside any other in the other direction.
IMPAIRMENTS = (
    Impairment(latency_ms=20),
    Impairment(latency_ms=30, jitter_ms=10, loss_pct=1),
    Impairment(loss_pct=2.5),
    Impairment(rate_kbit=8000),
    Impairment(latency_ms=40, reorder_pct=1, rate_kbit=500, buffer_kb=64),
    Impairment(duplicate_pct=1, corrupt_pct=0.5),
)


def random_condition(rng: Random) -> LinkCondition:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice([*LINK_PRESETS.values()])
    if kind == 1:
        return LinkCondition(up=rng.choice(IMPAIRMENTS))
    if kind == 2:
        return LinkCondition(up=rng.choice(IMPAIRMENTS), down=rng.choice(IMPAIRMENTS))
    return LinkCondition(**rng.choice(IMPAIRMENTS).set_values())


def linked(spec: LabSpec, seed: int) -> LabSpec:
    """The lab with conditions on half of its links, and some of its regions linked."""
    rng = Random(seed)

    def maybe() -> LinkCondition | None:
        return random_condition(rng) if rng.random() < 0.5 else None

    names = [region.name for region in spec.regions]
    pairs = [(a, b) for at, b in enumerate(names) for a in names[:at] if rng.random() < 0.7]
    return evolve(
        spec,
        routers=tuple(evolve(router, downlink=maybe()) for router in spec.routers),
        devices=tuple(
            evolve(
                device, ifaces={name: evolve(iface, link=maybe()) for name, iface in device.ifaces.items()}
            )
            for device in spec.devices
        ),
        region_links=tuple(
            RegionLinkSpec(a, b, random_condition(rng)) for a, b in (rng.sample(pair, 2) for pair in pairs)
        ),
    )


def plain_labs() -> st.SearchStrategy[LabSpec]:
    """Labs all of whose links are perfect."""
    return st.builds(
        random_lab,
        seed=st.integers(0, 2**32),
        regions=st.integers(0, 2),
        routers=st.integers(1, 7),
        devices=st.integers(0, 7),
    )


def labs() -> st.SearchStrategy[LabSpec]:
    """Labs with conditions on some of their links."""
    return st.builds(linked, plain_labs(), st.integers(0, 2**32))
