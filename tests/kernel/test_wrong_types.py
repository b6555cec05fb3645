"""Arguments of a wrong type are refused with what is accepted, and change nothing."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import patchbay
from patchbay.change import from_table, to_table
from patchbay.lab.lab import Lab
from tests.kernel.labs import home_lab

pytestmark = pytest.mark.kernel

Call = Callable[[Lab], Awaitable[object]]
CALLS: dict[str, tuple[Call, type[Exception], str]] = {
    "a region's name": (
        lambda lab: lab.add_region(5),  # type: ignore[arg-type]
        patchbay.SpecError,
        "name: found an integer (5); accepted: a string",
    ),
    "interfaces": (
        lambda lab: lab.add_device("b", ifaces=["home"]),  # type: ignore[arg-type]
        TypeError,
        "`ifaces` is a dict such as {'eth0': router}, not ['home']",
    ),
    "a change": (
        lambda lab: lab.apply("remove-device"),  # type: ignore[arg-type]
        TypeError,
        "a change of patchbay.change is needed, not 'remove-device'; from_table() reads tables",
    ),
    "a network that no host can be in": (
        lambda lab: lab.add_router("all", downstream_cidr="0.0.0.0/0"),
        patchbay.SpecError,
        "router.all.downstream_cidr: found 0.0.0.0/0; accepted: addresses of hosts, none of 0.0.0.0/8",
    ),
}


@pytest.mark.parametrize("case", CALLS)
async def test_a_call_with_a_wrong_value_says_what_is_accepted(case: str) -> None:
    call, error, message = CALLS[case]
    async with home_lab() as lab:
        before = lab.state()
        with pytest.raises(error) as caught:
            await call(lab)
        assert str(caught.value) == message
        assert lab.state() == before


@pytest.mark.parametrize("look_up", ["device", "router", "region", "node"])
async def test_a_look_up_of_something_else_names_what_there_is(look_up: str) -> None:
    async with home_lab() as lab:
        await lab.add_region("eu")
        with pytest.raises(KeyError, match=rf"unknown {look_up} '3'; known: [a-z]"):
            getattr(lab, look_up)(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"spec": 3},
            "spec: found an integer (3); accepted: the path of a TOML file, a dict, or a LabSpec",
        ),
        *(
            ({"label": label}, f"label: found {found}; accepted: printable text")
            for label, found in (
                (3, "an integer (3)"),
                *((wrong, repr(wrong)) for wrong in ("", "a\nb")),
            )
        ),
    ],
)
async def test_open_lab_refuses_a_wrong_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(patchbay.SpecError) as caught:
        async with patchbay.open_lab(**options):
            raise AssertionError("it was opened")
    assert str(caught.value) == message


async def test_a_label_of_any_length_names_a_folder(tmp_path: Path) -> None:
    for label in ("x" * 300, "é" * 300):
        async with patchbay.open_lab(outdir=tmp_path, label=label) as lab:
            assert lab.label == label
            assert lab.run_dir and label[:50] in lab.run_dir.name


async def test_a_file_as_folder_of_runs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = r"outdir: no folder can be made in '.*/file': (File exists|Not a directory)"
    with pytest.raises(patchbay.SpecError, match=message):
        async with patchbay.open_lab(outdir=tmp_path / "file"):
            raise AssertionError("it was opened")


async def test_a_path_that_leaves_a_nodes_folder_is_refused(tmp_path: Path) -> None:
    async with home_lab(run_dir=tmp_path / "run") as lab:
        laptop = lab.device("laptop")
        assert laptop.filepath("a/../b.log") == tmp_path / "run/nodes/laptop/a/../b.log"
        for wrong in ("../x", "/etc/passwd", "a/../../x"):
            with pytest.raises(ValueError, match=re.escape(f"found {wrong!r}; accepted: a name within")):
                laptop.filepath(wrong)


def test_tables_and_changes_are_not_confused() -> None:
    with pytest.raises(patchbay.SpecError, match=r"found an integer \(3\); accepted: a table"):
        from_table(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a change of patchbay\.change is needed, not 'x'"):
        to_table("x")  # type: ignore[arg-type]
