"""Which sims are meant by what is named."""

from pathlib import Path

import pytest

from patchbay.errors import SpecError
from patchbay.sim.spec.find import load_sims, sim_files
from tests.sim.sim_files import write_sim

RUN = '[[step]]\ndevice = "server"\ncmd = ["true"]\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two sims beside a lab file and a note, a project file above."""
    sims = tmp_path / "project" / "sims"
    (sims / "topos").mkdir(parents=True)
    write_sim(sims, RUN, name="b")
    write_sim(sims, RUN, name="a")
    write_sim(sims, "", name="lab")
    write_sim(sims / "topos", RUN, name="deeper")
    (sims / "note.txt").write_text("[[step]]")
    (tmp_path / "project" / "patchbay.toml").write_text('simulations = "sims"')
    return tmp_path / "project"


def names(files: list[Path]) -> list[str]:
    return [file.stem for file in files]


def test_a_folder_means_the_sims_in_it_and_below_but_no_topologies_and_nothing_hidden(project: Path) -> None:
    sims = project / "sims"
    for folder in ("nat/home", ".patchbay-work", "nat/topos"):
        (sims / folder).mkdir(parents=True)
        write_sim(sims / folder, RUN, name="c")
    assert sim_files([sims], project) == [sims / "a.toml", sims / "b.toml", sims / "nat/home/c.toml"]


def test_each_sim_is_meant_once_in_the_order_of_the_names(project: Path) -> None:
    sims = project / "sims"
    assert names(sim_files([sims / "b.toml", sims, sims / "topos" / ".." / "a.toml"], project)) == ["b", "a"]


def test_a_broken_file_that_is_no_sim_is_ignored_and_a_broken_sim_is_reported(project: Path) -> None:
    sims = project / "sims"
    for name, text in (("broken", b"[tool"), ("empty", b""), ("binary", b"\xff\xfe")):
        (sims / f"{name}.toml").write_bytes(text)
    assert names(sim_files([sims], project)) == ["a", "b"]
    (sims / "c.toml").write_text('[[step]]\ncmd = ["true"')
    with pytest.raises(SpecError, match=r"c\.toml: is not TOML: Unclosed array"):
        load_sims([sims], project)


@pytest.mark.parametrize("pattern", ["sims", "sims/*.toml", "./sims/[ab].toml", "si*"])
def test_without_names_the_project_names_them(pattern: str, project: Path) -> None:
    (project / "sims" / "lab.toml").unlink()
    (project / "patchbay.toml").write_text(f'simulations = "{pattern}"')
    assert names(sim_files([], project / "sims" / "topos")) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('simulations = "nowhere"', r"patchbay.toml:simulations: found 'nowhere', and nothing is there"),
        ("simulations = 3", r"patchbay.toml:simulations: found an integer \(3\); accepted: a string"),
        ('simulation = "sims"', r"patchbay.toml:simulation: unknown key; .*did you mean 'simulations'"),
    ],
)
def test_a_project_file_that_is_wrong_is_refused(text: str, message: str, project: Path) -> None:
    (project / "patchbay.toml").write_text(text)
    with pytest.raises(SpecError, match=message):
        sim_files([], project)


def test_without_names_and_project_there_is_nothing_to_run(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no sim named, and no patchbay.toml here or further up"):
        sim_files([], tmp_path)


def test_a_folder_without_sims_is_refused(project: Path) -> None:
    (project / "empty").mkdir()
    with pytest.raises(SpecError, match="no sim in this folder or below"):
        sim_files([project / "empty"], project)


def test_the_problems_of_all_files_are_reported_together(project: Path) -> None:
    sims = project / "sims"
    write_sim(sims, RUN.replace("server", "x"), name="a")
    write_sim(sims, RUN.replace("server", "y"), name="b")
    with pytest.raises(SpecError) as caught:
        load_sims([sims, sims / "none.toml", sims / "lab.toml"], project)
    starts = [line.partition(": ")[0] for line in str(caught.value).splitlines()]
    assert starts == [
        f"{sims}/a.toml:step[0].device",
        f"{sims}/b.toml:step[0].device",
        f"{sims}/none.toml",
        f"{sims}/lab.toml",
    ]
