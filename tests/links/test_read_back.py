"""What the kernel did not take is an error. Of netem alone: conftest leaves it out where there is none."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

import patchbay
from patchbay.tools import tc
from tests.links.measuring import open_links
from tests.pure.qdiscs import DIRECTIONS, command_lines
from tests.pure.test_tc import found

pytestmark = pytest.mark.kernel


async def qdiscs(node: patchbay.Node) -> str:
    return (await node.run(["tc", "qdisc", "show"], capture_stdout=True)).stdout.decode()


async def test_a_value_that_the_kernel_did_not_take_is_an_error_and_is_undone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    really = tc.netem_replace

    def forgetful(*args: Any) -> tuple[str, ...]:
        return tuple("0%" if word == "5%" else word for word in really(*args))

    async with open_links("netem", {"d": {"latency_ms": 10}}) as lab:
        before, state = await qdiscs(lab.router("r-d")), lab.state()
        with monkeypatch.context() as patch:
            patch.setattr("patchbay.tools.tc.netem_replace", forgetful)
            with pytest.raises(patchbay.CommandFailed) as raised:
                await lab.device("d").set_link_condition("eth0", {"loss_pct": 5})
        assert "asked for loss 0.05; the kernel has 0" in str(raised.value)
        assert await qdiscs(lab.router("r-d")) == before
        assert lab.state() == state


async def test_every_value_reaches_the_kernel() -> None:
    everything = {
        **{"latency_ms": 12.5, "jitter_ms": 2.5, "loss_pct": 1.25, "duplicate_pct": 2, "corrupt_pct": 3},
        **{"reorder_pct": 4, "rate_kbit": 12_345, "buffer_kb": 77},
    }
    async with open_links("netem", {"d": {"up": everything}}) as lab:
        text = await qdiscs(lab.router("r-d"))
        for words in (
            *("delay 12.5ms  2.5ms", "loss 1.25%", "duplicate 2%", "reorder 4%", "corrupt 3%"),
            "rate 12345Kbit",
        ):
            assert words in text, text
        assert text.count("netem") == text.count("tbf") == 1
        await lab.device("d").set_link_condition("eth0", None)
        assert "netem" not in await qdiscs(lab.router("r-d"))


async def test_a_kernel_without_netem_is_reported_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "patchbay.tools.tc.netem_replace", lambda dev, _: ("qdisc", "replace", "dev", dev, "root", "netemm")
    )
    async with open_links("netem", {"d": None}) as lab:
        with pytest.raises(patchbay.CommandFailed, match="open the lab with emulator='userspace'"):
            await lab.device("d").set_link_condition("eth0", "wifi")


def test_a_kernel_still_shows_what_was_recorded() -> None:
    script = "set -e\nip link add name wire1-near type veth peer name other\n"
    for case in DIRECTIONS:
        lines = "\n".join(command_lines(case))
        script += f"tc -batch - <<'EOF'\n{lines}\nEOF\ntc -j qdisc show; echo\n"
    done = subprocess.run(["unshare", "-rn", "sh"], input=script, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    tables = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    for case, table in zip(DIRECTIONS, tables, strict=True):
        assert found(DIRECTIONS[case], table) == []
