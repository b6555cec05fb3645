"""What programs of others say about the NAT that they are behind."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import trio
from attrs import evolve

import patchbay
from patchbay.lab.nodes import Device
from patchbay.model.nat import Behavior, Nat, NatConfig, config_of
from tests.judges.coturn import open_coturn
from tests.judges.tools import HAIRPIN_TOOLS, TOOLS

# In one worker, because each worker would ask all programs.
pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("verdicts")]

CLASSES = {
    f"{mapping.short}M-{filtering.short}F": NatConfig(mapping=mapping, filtering=filtering)
    for mapping, filtering in itertools.product(Behavior, repeat=2)
}
HAIRPINS = {f"{name}-hairpin": evolve(nat, hairpin=True) for name, nat in CLASSES.items()}
NATS: dict[str, Nat | NatConfig] = {**{preset.value: preset for preset in Nat}, **CLASSES, **HAIRPINS}
ASKED = [(tool, nat) for tool in TOOLS for nat in NATS if tool in HAIRPIN_TOOLS or nat not in HAIRPINS]

# They wait nearly all the time.
AT_ONCE = 40

Said = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Said:
    """What each tool prints behind each NAT, by the names of both; all in one lab, and nearly at once."""
    return trio.run(_ask_all, tmp_path_factory.mktemp("coturn"))


async def _ask_all(folder: Path) -> Said:
    found: Said = {}
    limit = trio.CapacityLimiter(AT_ONCE)
    async with patchbay.open_lab(label="judges") as lab, open_coturn(lab, folder) as coturn:
        devices: dict[str, Device] = {}
        async with lab.batch():
            for name, nat in NATS.items():
                router = await lab.add_router(f"r-{name}", nat=nat)
                devices[name] = await lab.add_device(name, uplink=router)

        async def ask(tool: str, nat: str) -> None:
            device = devices[nat]
            argv = TOOLS[tool].argv(str(device.ip), coturn.address)
            async with limit:
                # `stun` answers by its exit status, too.
                done = await device.run(argv, capture_stdout=True, check=False)
            found[tool, nat] = done.stdout.decode()

        async with trio.open_nursery() as nursery:
            for asked in ASKED:
                nursery.start_soon(ask, *asked)
    return found


@pytest.mark.parametrize(("tool", "nat"), ASKED)
def test_a_tool_sees_the_nat_that_was_asked_for(tool: str, nat: str, said: Said) -> None:
    out = said[tool, nat]
    assert TOOLS[tool].verdict(out) == TOOLS[tool].expected(config_of(NATS[nat])), out


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_tells_apart_as_many_of_the_nine_classes_as_it_can(tool: str, said: Said) -> None:
    verdicts = {TOOLS[tool].verdict(said[tool, name]) for name in CLASSES}
    assert len(verdicts) == TOOLS[tool].classes, verdicts
