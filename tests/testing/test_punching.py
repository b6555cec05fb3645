"""Hole punching between all pairs of NATs: done, and compared with what theory says of it."""

from __future__ import annotations

import pytest

from patchbay.model.nat import Behavior, Nat, NatConfig
from patchbay.testing import connects
from patchbay.testing.punching import measure_matrix

pytestmark = pytest.mark.kernel

# Of random ports: that a port is preserved, or in a row, shall help nobody.
NATS: dict[str, Nat | NatConfig] = {
    **{str(nat): nat for nat in Nat},
    **{
        f"{mapping.short}M-{filtering.short}F": NatConfig(mapping, filtering, "random")
        for mapping in Behavior
        for filtering in Behavior
    },
}


async def test_hosts_connect_as_theory_says() -> None:
    found = await measure_matrix(NATS)
    assert len(found) == 2 * len(NATS) * (len(NATS) + 1) // 2
    wrong = {
        pair: works
        for pair, works in found.items()
        if works != connects(NATS[pair[1]], NATS[pair[2]], pair[0])
    }
    assert wrong == {}
