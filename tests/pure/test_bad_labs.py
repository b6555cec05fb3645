"""What the parts of a lab may not say of each other, each with the whole message."""

from ipaddress import IPv4Network

import pytest

from patchbay.errors import SpecError
from patchbay.layout.allocate import empty_layout, extend
from patchbay.model.lab import DeviceSpec, IfaceSpec, LabSpec, RegionSpec, RouterSpec
from patchbay.model.nat import Nat
from tests.pure.labs import problems_of, region_of, router_of

ROUTER = '[[router]]\nname = "r"\n'
SECOND = '[[router]]\nname = "s"\n'
DEVICE = '[device.d.eth0]\ngateway = "r"\n'
NAT = 'nat = "home"\n'
HOME = NAT + 'downstream_cidr = "192.168.1.0/24"\n'
LOOP = "accepted: a chain that ends at the exchange"
APART = "in the same routing domain; accepted: a network of its own"

# A lab file, and its problems: path and message.
BAD = {
    "an unknown upstream": (
        f"{ROUTER}upstream = 'rr'\n{SECOND}upstream = 'ss'",
        ("router[0].upstream", "unknown router 'rr'; known: s"),
        ("router[1].upstream", "unknown router 'ss'; known: r"),
    ),
    "an unknown gateway": (
        f"{ROUTER}[device.d.eth0]\ngateway = 'q'",
        ("device.d.eth0.gateway", "unknown router 'q'; known: r"),
    ),
    "a private folder that is no absolute path": (
        f"{ROUTER}{DEVICE}[device.d]\nprivate = ['tmp', '/a/../b', '/a//b']",
        *(
            (
                f"device.d.private[{index}]",
                f"found '{path}'; accepted: the absolute path of a folder such as '/tmp', without '..'",
            )
            for index, path in enumerate(("tmp", "/a/../b", "/a//b"))
        ),
    ),
    "a private folder that nodes have already": (
        f"{ROUTER}{DEVICE}[device.d]\nprivate = ['/run', '/proc/1']",
        *(
            (
                f"device.d.private[{index}]",
                f"found '{path}', which nodes have of their own already or cannot be without",
            )
            for index, path in enumerate(("/run", "/proc/1"))
        ),
    ),
    "a gateway where there is no router": (
        DEVICE,
        ("device.d.eth0.gateway", "unknown router 'r'; there is none yet"),
    ),
    "a misspelt region that has a table": (
        f"[region.europe]\n{ROUTER}region = 'eurpoe'",
        (
            "router[0].region",
            "found 'eurpoe', which looks like 'europe'; "
            "accepted: 'europe', or 'eurpoe' with a table [region.eurpoe]",
        ),
    ),
    "a region that others spell otherwise": (
        f"[region.us]\nlatencies = {{ Asia = 3 }}\n{ROUTER}region = 'asia'\n{SECOND}region = 'asia'",
        (
            "region.us.latencies",
            "found 'Asia', which looks like 'asia'; accepted: 'asia', or 'Asia' with a table [region.Asia]",
        ),
    ),
    "a region beside an upstream": (
        f"[region.eu]\n{ROUTER}{SECOND}upstream = 'r'\nregion = 'eu'",
        ("router[1].region", "a router with an upstream is in its upstream's region; name only one"),
    ),
    "a router above itself": (
        f"{ROUTER}upstream = 'r'",
        ("router[0].upstream", f"router loop: r -> r; {LOOP}"),
    ),
    "routers in a circle, and one below them": (
        f"{ROUTER}upstream = 's'\n{SECOND}upstream = 'r'\n[[router]]\nname = 't'\nupstream = 'r'",
        ("router[0].upstream", f"router loop: r -> s -> r; {LOOP}"),
        ("router[1].upstream", f"router loop: s -> r -> s; {LOOP}"),
    ),
    "two routers of one name": (
        ROUTER + ROUTER,
        ("router[1].name", "duplicate name 'r': it is also the name of router[0]"),
    ),
    "a router and a device of one name": (
        f"{ROUTER}[device.r.eth0]\ngateway = 'r'",
        ("device.r", "duplicate name 'r': it is also the name of router[0]"),
    ),
    "a device called like one of a count": (
        f"{ROUTER}[device.d]\ncount = 2\n{DEVICE}[device.d-1.eth0]\ngateway = 'r'",
        ("device.d-1", "duplicate name 'd-1': it is also the name of device.d"),
    ),
    "a device without an interface": (
        f"{ROUTER}[device.d]",
        (
            "device.d",
            "a device needs an interface; accepted: at least one [device.NAME.IFACE] with a gateway",
        ),
    ),
    "an unknown interface for the default route": (
        f"{ROUTER}[device.d]\ndefault_via = 'eth1'\n{DEVICE}",
        ("device.d.default_via", "unknown interface 'eth1'; known: eth0; did you mean 'eth0'?"),
    ),
    "two devices of one environment variable": (
        f"{ROUTER}[device.a-b.eth0]\ngateway = 'r'\n[device.a_b.eth0]\ngateway = 'r'",
        ("device.a_b", "collides with device 'a-b': both would be $PATCHBAY_IP_A_B"),
    ),
    "a device and an interface of one environment variable": (
        f"{ROUTER}[device.a.eth0]\ngateway = 'r'\n[device.a-eth0.wan0]\ngateway = 'r'",
        (
            "device.a-eth0",
            "collides with interface 'eth0' of device 'a': both would be $PATCHBAY_IP_A_ETH0",
        ),
    ),
    "two interfaces of one environment variable": (
        f"{ROUTER}[device.a.eth-0]\ngateway = 'r'\n[device.a.eth_0]\ngateway = 'r'",
        (
            "device.a",
            "the variable of interface 'eth_0' collides with interface 'eth-0' of device 'a': "
            "both would be $PATCHBAY_IP_A_ETH_0",
        ),
    ),
    "an IPv6 router below one without": (
        f"{ROUTER}{SECOND}upstream = 'r'\nip_support = 'v6-only'\n"
        "[[router]]\nname = 't'\nupstream = 's'\n[device.d.eth0]\ngateway = 't'",
        ("router[1].ip_support", "found 'v6-only', but 'r' above it is 'v4-only': no IP version in common"),
    ),
    "an MTU below what IPv4 needs": (
        f"{ROUTER}mtu = 67",
        ("router[0].mtu", "found 67; accepted: 68 to 65535 bytes"),
    ),
    "an MTU below what IPv6 needs": (
        f"{ROUTER}mtu = 1279\nip_support = 'v6-only'",
        (
            "router[0].mtu",
            "found 1279; accepted: 1280 to 65535 bytes (IPv6 needs 1280: RFC 8200 section 5)",
        ),
    ),
    "an MTU above what veth takes": (
        f"{ROUTER}mtu = 65536",
        ("router[0].mtu", "found 65536; accepted: 68 to 65535 bytes"),
    ),
    "an MTU below what one of a device's interfaces needs": (
        f"{ROUTER}ip_support = 'dual-stack'\n{SECOND}"
        "[device.d]\nmtu = 1000\n[device.d.eth0]\ngateway = 'r'\n[device.d.eth1]\ngateway = 's'",
        (
            "device.d.mtu",
            "found 1000; accepted: 1280 to 65535 bytes (IPv6 needs 1280: RFC 8200 section 5)",
        ),
    ),
    "an IPv4 network below an IPv6 router": (
        f"{ROUTER}ip_support = 'v6-only'\ndownstream_cidr = '10.0.0.0/24'",
        ("router[0].downstream_cidr", "the router has no IPv4 (ip_support)"),
    ),
    "an IPv6 network below an IPv4 router": (
        f"{ROUTER}downstream_cidr_v6 = 'fd00::/64'",
        ("router[0].downstream_cidr_v6", "the router has no IPv6 (ip_support)"),
    ),
    "a network without room for a host": (
        f"{ROUTER}downstream_cidr = '10.0.0.0/31'",
        ("router[0].downstream_cidr", "found 10.0.0.0/31; accepted: a prefix of at most 30 bits"),
    ),
    "an IPv6 network too small for a LAN": (
        f"{ROUTER}ip_support = 'v6-only'\ndownstream_cidr_v6 = 'fd00::/65'",
        ("router[0].downstream_cidr_v6", "found fd00::/65; accepted: a prefix of at most 64 bits"),
    ),
    "a multicast network": (
        f"{ROUTER}downstream_cidr = '239.0.0.0/8'",
        (
            "router[0].downstream_cidr",
            "found 239.0.0.0/8; accepted: addresses of hosts, none of 224.0.0.0/3",
        ),
    ),
    "link-local addresses": (
        f"{ROUTER}ip_support = 'v6-only'\ndownstream_cidr_v6 = 'fe80::/64'",
        ("router[0].downstream_cidr_v6", "found fe80::/64; accepted: addresses of hosts, none of fe80::/10"),
    ),
    "a network over another router's": (
        f"{ROUTER}downstream_cidr = '192.0.2.0/24'\n{SECOND}downstream_cidr = '192.0.2.128/25'",
        ("router[1].downstream_cidr", f"192.0.2.128/25 overlaps 192.0.2.0/24 of router 'r' {APART}"),
    ),
    "a network over the exchange's": (
        f"{ROUTER}downstream_cidr = '26.0.128.0/17'",
        ("router[0].downstream_cidr", f"26.0.128.0/17 overlaps 26.0.0.0/16 of the exchange {APART}"),
    ),
    "an IPv6 network over the exchange's": (
        f"{ROUTER}ip_support = 'v6-only'\ndownstream_cidr_v6 = '2d00::/48'",
        ("router[0].downstream_cidr_v6", f"2d00::/48 overlaps 2d00::/64 of the exchange {APART}"),
    ),
    "a network over the NAT's above": (
        f"{ROUTER}{HOME}{SECOND}upstream = 'r'\ndownstream_cidr = '192.168.1.128/25'",
        ("router[1].downstream_cidr", f"192.168.1.128/25 overlaps 192.168.1.0/24 of router 'r' {APART}"),
    ),
    "a network over the uplink of the NAT above": (
        f"{ROUTER}{NAT}{SECOND}upstream = 'r'\ndownstream_cidr = '26.0.0.0/16'",
        ("router[1].downstream_cidr", f"26.0.0.0/16 overlaps 26.0.0.0/16 of the exchange {APART}"),
    ),
    "a NAT's network over that of its own uplink": (
        f"{ROUTER}{HOME}{SECOND}{HOME}upstream = 'r'",
        ("router[1].downstream_cidr", f"192.168.1.0/24 overlaps 192.168.1.0/24 of router 'r' {APART}"),
    ),
    "a device in two networks of the same addresses": (
        f"{ROUTER}{HOME}{SECOND}{HOME}[device.d.eth0]\ngateway = 'r'\n[device.d.eth1]\ngateway = 's'",
        (
            "device.d.eth1.gateway",
            "'s' and 'r' (on eth0) both have 192.168.1.0/24 below them: a device cannot tell them apart",
        ),
    ),
}

# What looks like one of these, and is fine.
GOOD = {
    "a network that would have been an earlier router's": (
        f"{ROUTER}{SECOND}downstream_cidr = '55.0.0.0/24'"
    ),
    "a network that would have been a region's": (f"[region.eu]\n{ROUTER}downstream_cidr = '26.1.0.0/16'"),
    "the same network behind two NATs": f"{ROUTER}{HOME}{SECOND}{HOME}",
    "the same network behind two NATs, two devices": (
        f"{ROUTER}{HOME}{SECOND}{HOME}{DEVICE}[device.e.eth0]\ngateway = 's'"
    ),
    "two interfaces on one router": f"{ROUTER}{HOME}{DEVICE}[device.d.eth1]\ngateway = 'r'",
    "a region called like a router": f"[region.r]\n{ROUTER}region = 'r'",
    "a router called like a region's namespace": "[region.eu]\n[[router]]\nname = 'region-eu'",
    "a dual-stack router below one without IPv6": (
        f"{ROUTER}{SECOND}upstream = 'r'\nip_support = 'dual-stack'"
    ),
    "a count of one": f"{ROUTER}[device.d]\ncount = 1\n{DEVICE}",
    "regions alone": "[region.eu]\n[region.us]",
    "regions that are named by routers, latencies and links alone": (
        f"[region.us]\nlatencies = {{ eu = 80 }}\n{ROUTER}region = 'asia'\n"
        "[[region-link]]\na = 'africa'\nb = 'oceania'\nlatency_ms = 1"
    ),
    "regions with names that are near": (
        f"[region.eu1]\n[region.us]\n{ROUTER}region = 'eu2'\n{SECOND}region = 'uk'"
    ),
    "the least and the greatest MTU": f"{ROUTER}mtu = 68\n{SECOND}mtu = 65535",
    "the largest prefix length": f"{ROUTER}downstream_cidr = '10.0.0.0/30'\n{DEVICE}",
}


@pytest.mark.parametrize("case", BAD)
def test_a_lab_may_not_have(case: str) -> None:
    toml, *expected = BAD[case]
    assert isinstance(toml, str)
    assert problems_of(toml) == expected


@pytest.mark.parametrize("case", GOOD)
def test_a_lab_may_have(case: str) -> None:
    assert problems_of(GOOD[case]) == []


def added_later(lab: LabSpec, later: LabSpec) -> list[tuple[str, str]]:
    layout = extend(empty_layout(), lab)
    with pytest.raises(SpecError) as raised:
        extend(layout, later)
    return [(problem.path, problem.message) for problem in raised.value.problems]


SMALL = LabSpec(
    regions=(RegionSpec("eu"),),
    routers=(RouterSpec("r"),),
    devices=(DeviceSpec("d", {"eth0": IfaceSpec("r")}),),
)

LATER = {
    "a region twice": (
        LabSpec(regions=(RegionSpec("us"), RegionSpec("us"))),
        ("region.us", "there is a region 'us' already"),
    ),
    "a region that is there": (
        LabSpec(regions=(RegionSpec("eu"),)),
        ("region.eu", "there is a region 'eu' already"),
    ),
    "a router that is there": (
        LabSpec(routers=(RouterSpec("r"),)),
        ("router[0].name", "duplicate name 'r': the lab has a router of that name"),
    ),
    "a router called like a device that is there": (
        LabSpec(routers=(RouterSpec("d"),)),
        ("router[0].name", "duplicate name 'd': the lab has a device of that name"),
    ),
    "a device whose variable is taken": (
        LabSpec(devices=(DeviceSpec("D", {"eth0": IfaceSpec("r")}),)),
        ("device.D", "collides with device 'd': both would be $PATCHBAY_IP_D"),
    ),
    "a device on an unknown router": (
        LabSpec(devices=(DeviceSpec("e", {"eth0": IfaceSpec("rr")}),)),
        ("device.e.eth0.gateway", "unknown router 'rr'; known: r; did you mean 'r'?"),
    ),
    "a router in an unknown region": (
        LabSpec(routers=(RouterSpec("s", region="us"),)),
        ("router[0].region", "unknown region 'us'; known: eu"),
    ),
    "an unknown router among many": (
        LabSpec(
            routers=tuple(RouterSpec(f"n{n:02}") for n in range(20)),
            devices=(DeviceSpec("e", {"eth0": IfaceSpec("?")}),),
        ),
        (
            "device.e.eth0.gateway",
            "unknown router '?'; known: n00, n01, n02, n03, n04, n05, n06, n07, n08, n09, n10, n11, …",
        ),
    ),
}


@pytest.mark.parametrize("case", LATER)
def test_to_a_lab_one_may_not_add(case: str) -> None:
    later, problem = LATER[case]
    assert added_later(SMALL, later) == [problem]


def test_to_a_lab_one_may_add_what_names_its_parts() -> None:
    layout = extend(extend(empty_layout(), SMALL), LabSpec(routers=(RouterSpec("s", upstream="r"),)))
    further = LabSpec(
        routers=(RouterSpec("t", region="eu"),), devices=(DeviceSpec("e", {"eth0": IfaceSpec("s")}),)
    )
    layout = extend(layout, further)
    assert router_of(layout, "s").parent == "router:r"
    assert router_of(layout, "t").parent == "region:eu"
    assert router_of(layout, "t").region == "eu"
    assert layout.devices["e"].ifaces[0].router == "s"


def test_a_region_added_later_gets_a_network_that_no_router_has() -> None:
    taken = RouterSpec("r", downstream_cidr=IPv4Network("26.1.0.0/16"))
    layout = extend(extend(empty_layout(), LabSpec(routers=(taken,))), LabSpec(regions=(RegionSpec("eu"),)))
    assert region_of(layout, "eu").networks[0] == IPv4Network("26.2.0.0/16")


def test_a_router_gets_the_next_network_that_nobody_has() -> None:
    taken = RouterSpec("r", downstream_cidr=IPv4Network("55.0.0.0/15"))
    layout = extend(empty_layout(), LabSpec(routers=(taken, RouterSpec("s"))))
    assert router_of(layout, "s").networks == (IPv4Network("55.2.0.0/16"),)


def test_a_router_that_translates_has_private_addresses_below_it_also_without_a_preset() -> None:
    layout = extend(empty_layout(), LabSpec(routers=(RouterSpec("r", nat=Nat.HOME),)))
    assert router_of(layout, "r").networks == (IPv4Network("10.0.0.0/16"),)
