"""Counted devices: steps aimed at NAME are repeated for each of NAME-0, NAME-1, …"""

from pathlib import Path
from typing import Any

from patchbay.sim.spec.encode import as_table
from tests.sim.sim_files import loaded, problems_of

FETCH = """
[[step]]
action = "spawn"
id = "fetch"
device = "peer"
cmd = ["curl", "-o", "${ip.peer}", "$NETSIM_IP_PEER", "$PATCHBAY_IP6_PEER", "${ip.server}",
    "$NETSIM_IP_PEER_ETH0"]
args = ["${ip.peer-1}"]
env = { ME = "${ip.PEER}" }
captures.size.regex = "size (.*)"
[step.results]
duration = ".size"
down_bytes = "fetch.size"
metrics = { own = "fetch.size" }
"""


def steps_of(folder: Path, steps: str) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = as_table(loaded(folder, steps))["step"]
    return table


def test_a_step_is_repeated_for_each_device(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, FETCH)
    assert [(step["id"], step["device"]) for step in steps] == [(f"fetch-{n}", f"peer-{n}") for n in range(3)]
    assert steps[2]["cmd"] == [
        "curl",
        *("-o", "${ip.peer-2}", "$PATCHBAY_IP_PEER_2", "$PATCHBAY_IP6_PEER_2", "${ip.server}"),
        "$PATCHBAY_IP_PEER_2_ETH0",
    ]
    assert steps[2]["args"] == ["${ip.peer-1}"]
    assert steps[2]["env"] == {"ME": "${ip.peer-2}"}
    assert steps[2]["results"] == {
        "duration": ".size",
        "down_bytes": "fetch-2.size",
        "metrics": {"own": "fetch-2.size"},
    }


def test_references_between_repeated_steps_stay_with_the_device(tmp_path: Path) -> None:
    again = """
[[step]]
id = "again"
device = "peer"
requires = ["fetch.size"]
cmd = ["echo", "${fetch.size}", "${fetch-0.size}"]
"""
    steps = steps_of(tmp_path, FETCH + again)[3:]
    assert [step["requires"] for step in steps] == [[f"fetch-{n}.size"] for n in range(3)]
    assert steps[1]["cmd"] == ["echo", "${fetch-1.size}", "${fetch-0.size}"]


def test_outside_of_it_requires_checks_and_wait_for_mean_all_of_them(tmp_path: Path) -> None:
    rest = """
[[step]]
action = "wait-for"
id = "fetch"
timeout = "5s"
[[step]]
device = "server"
requires = ["fetch.size"]
cmd = ["true"]
[[step]]
action = "assert"
check = "fetch.size > 5"
checks = ["fetch-1.size > 6"]
"""
    steps = steps_of(tmp_path, FETCH + rest)[3:]
    assert [step["id"] for step in steps[:3]] == ["fetch-0", "fetch-1", "fetch-2"]
    assert {step["timeout"] for step in steps[:3]} == {"5s"}
    assert steps[3]["requires"] == ["fetch-0.size", "fetch-1.size", "fetch-2.size"]
    assert steps[4]["checks"] == [
        "fetch-0.size > 5",
        "fetch-1.size > 5",
        "fetch-2.size > 5",
        "fetch-1.size > 6",
    ]


def test_an_assert_aimed_at_the_devices_is_repeated_too(tmp_path: Path) -> None:
    check = '[[step]]\naction = "assert"\ndevice = "peer"\ncheck = "fetch.size > 5"\n'
    steps = steps_of(tmp_path, FETCH + check)[3:]
    assert [step["checks"] for step in steps] == [[f"fetch-{n}.size > 5"] for n in range(3)]


def test_a_text_elsewhere_must_name_one(tmp_path: Path) -> None:
    rest = """
[[step]]
device = "server"
cmd = ["echo", "${fetch.size}", "${ip.peer}", "$NETSIM_IP_PEER"]
[[step]]
device = "other"
cmd = ["echo", "${fetch.size}"]
[step.results]
duration = "fetch.size"
"""
    assert problems_of(tmp_path, FETCH + rest) == [
        "step[1].cmd[1]: 'fetch' is 3 steps; accepted: one of them, fetch-0 to fetch-2",
        "step[1].cmd[2]: 'peer' is 3 devices; accepted: one of them, peer-0 to peer-2",
        "step[1].cmd[3]: 'peer' is 3 devices; accepted: one of them, peer-0 to peer-2",
        "step[2].cmd[1]: 'fetch' is 3 steps; accepted: one of them, fetch-0 to fetch-2",
        "step[2].results.duration: 'fetch' is 3 steps; accepted: one of them, fetch-0 to fetch-2",
    ]


def test_a_step_keeps_its_place_in_the_file_and_every_repetition_has_a_key(tmp_path: Path) -> None:
    sim = loaded(tmp_path, '[[step]]\ndevice = "server"\ncmd = ["true"]\n' + FETCH)
    assert [planned.path for planned in sim.steps] == ["step[0]", "step[1]", "step[1]", "step[1]"]
    assert [planned.key for planned in sim.steps] == ["step[0]", "step[1]-0", "step[1]-1", "step[1]-2"]
    assert sim.steps[3].label == "step[1] 'fetch-2' (spawn on peer-2)"
    assert sim.steps[0].label == "step[0] (run on server)"


def test_an_id_that_a_repetition_takes_is_a_duplicate(tmp_path: Path) -> None:
    taken = '[[step]]\nid = "fetch-1"\ndevice = "server"\ncmd = ["true"]\n'
    assert problems_of(tmp_path, FETCH + taken) == ["step[1].id: duplicate id 'fetch-1': step[0] has it too"]


def test_a_count_of_one_is_repeated_once_under_its_number(tmp_path: Path) -> None:
    topology = '[[router]]\nname = "dc"\n[device.one]\ncount = 1\n[device.one.eth0]\ngateway = "dc"\n'
    step = '[[step]]\nid = "a"\ndevice = "one"\ncmd = ["echo", "${ip.one}"]\n'
    (planned,) = loaded(tmp_path, step, topology=topology).steps
    assert (planned.step.id, planned.step.device) == ("a-0", "one-0")
