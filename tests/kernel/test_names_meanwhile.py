"""Names that one task sets while another changes the lab: the run's files tell the lab that there is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from patchbay.change import RemoveDevice
from patchbay.lab.lab import Lab
from patchbay.record.history import layout_after
from patchbay.record.state import snapshot
from tests.kernel.labs import home_lab

pytestmark = pytest.mark.kernel


def fill(lab: Lab) -> None:
    lab.dns_entry("old.lab", "192.0.2.1", "2001:db8::1")
    lab.device("laptop").dns_entry("own.lab", "192.0.2.1")


async def remove_both(lab: Lab) -> None:
    lab.remove_dns_entry("old.lab")


async def remove_listed(lab: Lab) -> None:
    lab.remove_dns_entry("old.lab", "192.0.2.1", "2001:db8::1")


async def remove_one(lab: Lab) -> None:
    lab.remove_dns_entry("old.lab", "192.0.2.1")


async def add(lab: Lab) -> None:
    lab.dns_entry("old.lab", "192.0.2.2")


async def renew_laptop(lab: Lab) -> None:
    await lab.apply(RemoveDevice("laptop"))
    await lab.add_device("laptop", uplink="home")


async def remove_laptop(lab: Lab) -> None:
    await lab.apply(RemoveDevice("laptop"))


IN_BATCH = [remove_both, remove_listed, remove_one, add, renew_laptop, remove_laptop]
MEANWHILE: dict[str, Callable[[Lab], None]] = {
    "a name removed": lambda lab: lab.remove_dns_entry("old.lab"),
    "an address removed": lambda lab: lab.remove_dns_entry("old.lab", "192.0.2.1"),
    "an address added": lambda lab: lab.dns_entry("old.lab", "192.0.2.2", "192.0.2.3"),
    "a node's name removed": lambda lab: lab.node("laptop").remove_dns_entry("own.lab"),
    "a node's name added": lambda lab: lab.node("laptop").dns_entry("more.lab", "192.0.2.9"),
    "a name server": lambda lab: lab.set_nameserver("192.0.2.53"),
}


def agrees(lab: Lab) -> None:
    """Compare the lab with its changes, its events, and the files in the kernel's view."""
    assert lab.run_dir
    applied = lab._core.changes.applied
    with (lab.run_dir / "changes.jsonl").open(encoding="utf-8") as lines:
        assert layout_after(lines) == applied
    told = [(e.kind, tuple(e.fields.items())) for e in lab._core.recorder.events.events if "dns" in e.kind]
    assert all(one != other for one, other in pairwise(told))
    assert lab.state()["dns"] == snapshot(applied)["dns"]


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("change", IN_BATCH, ids=lambda change: change.__name__)
@pytest.mark.parametrize("applying", [False, True], ids=["before it is applied", "while it is applied"])
async def test_a_batch_and_names_of_another_task_leave_what_the_files_tell(
    change: Callable[[Lab], object], meanwhile: str, applying: bool, tmp_path: Path
) -> None:
    async with home_lab(run_dir=tmp_path / "run") as lab, trio.open_nursery() as nursery:
        fill(lab)
        began, go_on, ended = trio.Event(), trio.Event(), trio.Event()

        async def in_batch() -> None:
            async with lab.batch():
                # Many devices, so that the batch is planned in a thread and the other task runs meanwhile.
                for number in range(30 if applying else 0):
                    await lab.add_device(f"phone{number}", uplink="home")
                await change(lab)  # type: ignore[misc]
                began.set()
                await go_on.wait()
            ended.set()

        nursery.start_soon(in_batch)
        await began.wait()
        if applying:
            go_on.set()
            await trio.testing.wait_all_tasks_blocked()
            assert lab._core.changes.waiting and not ended.is_set()
        MEANWHILE[meanwhile](lab)
        go_on.set()
        await ended.wait()
        agrees(lab)
