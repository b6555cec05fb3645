"""The state of a lab as the kernel tells it: every namespace with its links, addresses, routes and rules."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from patchbay.lab.lab import Lab
from tests.kernel.inside import run_in_lab

__all__ = ["DUMP", "is_settled", "kernel_state", "parse"]

State = dict[str, Any]

# Prints a line for each namespace and command: both, and what the command says as JSON.
DUMP = r"""
for ns in $(ls /run/netns); do
    nsenter --net=/run/netns/$ns sh -c '
        for command in "ip -j address" "ip -j route" "ip -6 -j route" "ip -j -d link" \
                "ip -j neigh show nud permanent" "tc -j qdisc" "nft -j list ruleset"; do
            echo "$0|$command|$($command)"
        done
        echo "$0|sysctl|\"$(sysctl -e SYSCTLS | tr "\n\t" ";,")\""' "$ns"
done
"""

# What differs between two labs that are the same: numbers that the kernel gives out or counts.
VOLATILE = {
    "ifindex", "link_index", "link_netnsid", "handle", "packets", "bytes",
    "valid_life_time", "preferred_life_time",
    # The bridge's clocks, and its name for a port's index.
    "hello_timer", "tcn_timer", "topology_change_timer", "gc_timer", "hold_timer", "message_age_timer",
    "forward_delay_timer", "root_port", "metainfo",
    # The number of a bridge's port: a free one.
    "designated_port", "id", "no",
}  # fmt: skip


async def kernel_state(lab: Lab) -> State:
    script = DUMP.replace("SYSCTLS", "net.ipv4.ip_forward net.ipv6.conf.all.forwarding")
    return parse((await run_in_lab(lab, "sh", "-c", script)).splitlines())


def parse(lines: Iterable[str]) -> State:
    """Read what `DUMP` prints."""
    state = {}
    for line in lines:
        ns, command, output = line.rstrip("\n").split("|", 2)
        state[f"{ns}: {command}"] = cleaned(json.loads(output or "[]"))
    return state


def cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        kept = value if _has_carrier(value) else _without_carrier(value)
        return {key: cleaned(inner) for key, inner in kept.items() if key not in VOLATILE}
    if isinstance(value, list):
        kept_items = (cleaned(inner) for inner in value if not (_is_down(inner) or _is_no_queue(inner)))
        return sorted(kept_items, key=lambda inner: json.dumps(inner, sort_keys=True))
    return value


def _is_down(value: Any) -> bool:
    """Tell whether this is the route to the neighbours on a link that has no carrier any more."""
    return isinstance(value, dict) and value.get("dst") == "fe80::/64" and "linkdown" in value["flags"]


def _is_no_queue(value: Any) -> bool:
    """Tell whether this is the qdisc of a link without a queue, which has none until it was up once."""
    return isinstance(value, dict) and value.get("kind") == "noqueue"


def _has_carrier(value: dict[str, Any]) -> bool:
    flags = value.get("flags")
    return flags is None or "ifname" not in value or ("UP" in flags and "NO-CARRIER" not in flags)


def _without_carrier(link: dict[str, Any]) -> dict[str, Any]:
    """Return what a link without carrier has whether it had one before or not.

    The kernel gives a link its link-local address when it has a carrier for the first time.
    """
    same = ("ifname", "address", "mtu", "master", "gso_max_segs")
    kept: dict[str, Any] = {key: link[key] for key in same if key in link}
    addresses = [address for address in link.get("addr_info", ()) if address["scope"] != "link"]
    return {**kept, "addr_info": addresses, "up": "UP" in link["flags"]}


def is_settled(state: State) -> bool:
    """Tell whether the kernel has done what it does on its own when carriers come.

    Every link is up. Each that has addresses has a link-local one as well, and the route to its like.
    """
    links = [link for key, links in state.items() if key.endswith(" ip -j address") for link in links]
    routes = [route for key, found in state.items() if key.endswith(" ip -6 -j route") for route in found]
    addressed = [link for link in links if link["ifname"] != "lo" and link["addr_info"]]
    local = [a for link in addressed for a in link["addr_info"] if a["scope"] == "link"]
    return (
        all(link["operstate"] == "UP" for link in links if link["ifname"] != "lo")
        and len(local) == len(addressed) == sum(route["dst"] == "fe80::/64" for route in routes)
        and not any("tentative" in address for address in local)
    )
