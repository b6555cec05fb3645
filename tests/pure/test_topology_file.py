"""The topology of a file: in it, or in the file that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchbay.config.topology_file import draft_topology, find_topology
from patchbay.errors import SpecError

LAB = '[[router]]\nname = "{name}"\npreset = "home"\n'
STEP = '[[step]]\naction = "wait"\nduration = "1s"\n'


def written(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def routers(file: Path) -> list[str | None]:
    return [router.name for router in draft_topology(file).spec.routers]


def test_a_lab_file_has_its_own(tmp_path: Path) -> None:
    assert routers(written(tmp_path / "lab.toml", LAB.format(name="own"))) == ["own"]


def test_a_sim_may_have_its_own(tmp_path: Path) -> None:
    assert routers(written(tmp_path / "sim.toml", LAB.format(name="own") + STEP)) == ["own"]


@pytest.mark.parametrize("name", ["net", "net.toml"])
@pytest.mark.parametrize("folder", ["sims/topos", "topos"])
def test_a_sim_may_name_one_beside_it_or_one_folder_up(tmp_path: Path, folder: str, name: str) -> None:
    written(tmp_path / folder / "net.toml", LAB.format(name="named"))
    sim = written(tmp_path / "sims" / "sim.toml", f'[sim]\ntopology = "{name}"\n{STEP}')
    assert routers(sim) == ["named"]


def test_one_that_is_not_there_is_an_error_with_those_that_are(tmp_path: Path) -> None:
    sim = tmp_path / "sims" / "sim.toml"
    with pytest.raises(
        SpecError, match=f"no topology 'net'; looked in {tmp_path}/sims/topos and {tmp_path}/topos"
    ):
        find_topology(sim, "net")
    written(tmp_path / "topos" / "nat.toml", "")
    with pytest.raises(SpecError, match="no topology 'net'; there are: nat"):
        find_topology(sim, "net")
