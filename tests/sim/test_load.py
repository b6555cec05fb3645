"""Sim files: what is accepted, and every problem of what is not."""

import json
import tomllib
from pathlib import Path

import pytest

from patchbay.config.draft import Draft
from patchbay.config.topology_file import draft_topology
from patchbay.errors import SpecError
from patchbay.layout.allocate import lay_out
from patchbay.sim.spec.encode import as_table
from patchbay.sim.spec.load import load_sim
from tests.sim.sim_files import RUN, TOPOLOGY, loaded, problems_of, run, write_sim

SIMS = Path(__file__).parents[2] / "sims"


def test_a_topology_may_be_in_a_file_of_its_own(tmp_path: Path) -> None:
    for folder in (tmp_path / "topos", tmp_path / "deeper" / "topos"):
        folder.mkdir(parents=True)
    (tmp_path / "topos" / "shared.toml").write_text(TOPOLOGY)
    (tmp_path / "deeper" / "topos" / "near.toml").write_text(TOPOLOGY.replace("server", "nearby"))
    for name, device in (("shared", "server"), ("shared.toml", "server"), ("near", "nearby")):
        head = f'[sim]\ntopology = "{name}"\n'
        steps = run('cmd = ["true"]', device=device)
        sim = loaded(tmp_path / "deeper", steps, head=head, topology="")
        assert device in {found.name for found in sim.lab.devices}
        assert draft_topology(sim.file).spec == sim.lab


def test_problems_of_a_topology_file_are_reported_with_that_file(tmp_path: Path) -> None:
    (tmp_path / "topos").mkdir()
    (tmp_path / "topos" / "bad.toml").write_text(TOPOLOGY.replace('"datacenter"', '"datcenter"'))
    found = problems_of(
        tmp_path, run('cmd = ["x"]', device="nope"), head='[sim]\ntopology = "bad"', topology=""
    )
    assert found[0].startswith(f"{tmp_path / 'topos' / 'bad.toml'}:router[0].preset: found 'datcenter'")
    assert found[1].startswith("step[0].device: unknown device 'nope'; known: dc, old, other")


def test_a_topology_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "topos").mkdir()
    (tmp_path / "topos" / "one.toml").write_text(TOPOLOGY)
    found = problems_of(tmp_path, run('cmd = ["x"]'), head='[sim]\ntopology = "two"', topology="")
    assert found == ["sim.topology: no topology 'two'; there are: one"]


def test_a_lab_file_is_no_sim(tmp_path: Path) -> None:
    file = write_sim(tmp_path, "")
    with pytest.raises(SpecError, match=r"is a lab file: .*patchbay inspect"):
        load_sim(file)
    assert [router.name for router in draft_topology(file).spec.routers] == ["dc", "v4"]


def test_a_sim_is_called_like_its_file_unless_it_says_otherwise(tmp_path: Path) -> None:
    assert loaded(tmp_path, RUN, name="first").name == "first"
    assert loaded(tmp_path, RUN, head='[sim]\nname = "other"').name == "other"


@pytest.mark.parametrize("file", sorted(SIMS.glob("*.toml")), ids=lambda file: file.stem)
def test_a_sim_that_is_written_out_is_the_same_sim_when_read_again(file: Path, tmp_path: Path) -> None:
    table = json.loads(json.dumps(as_table(load_sim(file))))
    copy = tmp_path / "copy.toml"
    copy.write_text(_toml(table))
    again = as_table(load_sim(copy))
    assert again["sim"].keys() == {"name", "timeout"}
    assert json.loads(json.dumps(again)) == table


EVERYTHING = """
addresses = "documentation"
[region.eu]
latencies = { us = 40 }
[region.us]
latencies = { eu = 45 }
[[region-link]]
a = "eu"
b = "us"
loss_pct = 1
[[router]]
name = "r"
region = "eu"
nat = { port_allocation = "block:64", protocols = ["udp"] }
firewall = { outbound_tcp = [443], outbound_udp = "none" }
downlink = "wifi"
downstream_cidr = "10.7.0.0/16"
[device.d]
count = 2
mtu = 1400
private = ["/tmp"]
stun = true
[device.d.eth0]
gateway = "r"
link = { rate_kbit = inf, up = { latency_ms = 3, trace = "train.up" } }
"""


def test_the_whole_of_a_lab_survives_json_as_any_parser_takes_it(tmp_path: Path) -> None:
    (tmp_path / "train.up").write_text("5\n9\n")
    sim = loaded(tmp_path, '[[step]]\naction = "wait"\nduration = "1s"', topology=EVERYTHING)
    table = json.loads(json.dumps(as_table(sim), allow_nan=False))
    assert table["addresses"] == "documentation"
    assert table["router"][0]["nat"]["port_allocation"] == "block:64"
    copy = tmp_path / "elsewhere" / "copy.toml"
    copy.parent.mkdir()
    copy.write_text(_toml(table))
    again = load_sim(copy)
    assert again.lab == sim.lab
    assert lay_out(Draft(again.lab)) == lay_out(Draft(sim.lab))


def _toml(table: dict[str, object]) -> str:
    """Enough of TOML for the tables that sims are written out as; JSON strings and arrays are TOML's."""

    def value(it: object) -> str:
        if isinstance(it, dict):
            return "{" + ", ".join(f"{json.dumps(key)} = {value(inner)}" for key, inner in it.items()) + "}"
        if isinstance(it, list):
            return "[" + ", ".join(map(value, it)) + "]"
        return json.dumps(it)

    text = "".join(f"{json.dumps(key)} = {value(inner)}\n" for key, inner in table.items())
    tomllib.loads(text)
    return text


def test_a_file_of_shared_definitions_is_called_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "shared.toml"
    file.write_text('[[step-template]]\nname = "ping"\ncmd = ["ping"]\n[[binary]]\nname = "x"\npath = "x"\n')
    with pytest.raises(
        SpecError, match=r"holds definitions for sims \(binary, step-template\): it has no"
    ) as e:
        load_sim(file)
    assert "lab file" not in str(e.value)
