"""The ranges of public addresses, in the kernel."""

from pathlib import Path
from typing import Any

import pytest

import patchbay
from patchbay.change.nodes import Add
from patchbay.errors import SpecError
from patchbay.model.lab import Addresses, LabSpec
from patchbay.record.history import layout_after

pytestmark = pytest.mark.kernel

ROUTER = {"name": "dc", "preset": "datacenter", "region": "eu"}
SERVER = {"server": {"eth0": {"gateway": "dc"}}}
PLACES: dict[str, list[str]] = {  # the exchange, the region's router, a device below it
    "global": ["26.0.0.1", "2d00::1", "26.1.0.2", "2d01:0:0:1::2", "55.0.0.2", "2d00:0:1::2"],
    "documentation": [
        "203.0.113.1",
        "2001:db8::1",
        "198.19.192.2",
        "2001:2::2",
        "198.18.0.2",
        "2001:db8:1::2",
    ],
}


@pytest.mark.parametrize(
    ("key", "argument", "expected"),
    [
        (None, None, "global"),
        (None, "documentation", "documentation"),
        ("documentation", None, "documentation"),
        ("documentation", "global", "global"),
    ],
)
async def test_public_addresses_are_in_the_ranges_that_were_chosen(
    key: str | None, argument: str | None, expected: str, tmp_path: Path
) -> None:
    spec: dict[str, Any] = {"router": [ROUTER], "device": SERVER, **({"addresses": key} if key else {})}
    async with patchbay.open_lab(spec, addresses=argument, outdir=tmp_path) as lab:
        server, router = lab.device("server"), lab.router("dc")
        exchange, above, below = PLACES[expected][:2], PLACES[expected][2:4], PLACES[expected][4:]
        assert [str(router.ip), str(router.ip6)] == above
        assert [str(server.ip), str(server.ip6)] == below
        for address in (*exchange, *above):
            await server.run(["ping", "-c1", address], capture_stdout=True)
        assert lab.run_dir
        with (lab.run_dir / "changes.jsonl").open(encoding="utf-8") as lines:
            assert layout_after(lines) == lab._core.changes.applied


async def test_an_open_lab_keeps_its_ranges() -> None:
    async with patchbay.open_lab() as lab:
        with pytest.raises(SpecError, match="the lab has 'global' since it was opened"):
            await lab.apply(Add(LabSpec(addresses=Addresses.DOCUMENTATION)))
        dc = await lab.add_router("dc", preset="datacenter")
        assert str(dc.ip) == "26.0.0.2"


@pytest.mark.parametrize("value", ["documentary", "", 5])
async def test_wrong_ranges_are_refused(value: Any) -> None:
    with pytest.raises(SpecError, match=r"addresses: found .*; accepted: 'global', 'documentation'"):
        async with patchbay.open_lab(addresses=value):
            pass
