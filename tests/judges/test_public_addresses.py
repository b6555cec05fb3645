"""What programs take a lab's public addresses for."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from patchbay.layout.pools import PUBLIC_PLANS
from patchbay.model.lab import Addresses

SOURCE = Path(__file__).parent / "public_addresses"


def hosts(addresses: Addresses) -> list[str]:
    """Addresses of the exchange, and the last ones of regions and public routers."""
    plan = PUBLIC_PLANS[addresses]
    pools = (plan.region, plan.region_v6, plan.public, plan.public_v6)
    last = [block.broadcast_address - 1 for pool in pools for block, _ in pool.blocks]
    return [*map(str, (own.ip for own in plan.exchange)), *map(str, last)]


@pytest.mark.parametrize("addresses", list(Addresses))
def test_go_libp2p_takes_global_addresses_for_public_and_no_others(
    addresses: Addresses, tmp_path: Path
) -> None:
    """By `IsPublicAddr` of go-multiaddr, on which go-libp2p's hole punching depends."""
    assert shutil.which("go"), "needs Go 1.23 or newer: https://go.dev/doc/install"
    program = shutil.copytree(SOURCE, tmp_path / "program")
    asked = hosts(addresses)
    argv = ["go", "run", "-mod=mod", ".", *asked]
    done = subprocess.run(argv, cwd=program, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    not_public = done.stdout.split()
    if addresses is Addresses.GLOBAL:
        assert not_public == []
    else:  # go-multiaddr has no entry for RFC 5180's range
        assert not_public == [address for address in asked if not address.startswith("2001:2:")]
