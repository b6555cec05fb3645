"""The folder of a run, and what stands in its files while it goes on and afterwards."""

import json
import os
import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import trio

from patchbay.report.combined import as_junit
from patchbay.report.run_folder import RunFolder
from patchbay.sim.live.runner import run_sims
from patchbay.sim.spec.outcome import RunEvent, SimEnded, Status, Tick
from patchbay.sim.spec.sim import Sim
from tests.leftovers import descendants
from tests.patience import DEADLINE
from tests.sim.sim_files import has_begun, loaded, until_there_is

TRUE = '[[step]]\ndevice = "server"\ncmd = ["true"]\n'
FALSE = '[[step]]\ndevice = "server"\ncmd = ["sh", "-c", "echo \'<a|b>\' >&2; false"]\n'


def sims(folder: Path, **steps: str) -> list[Sim]:
    return [loaded(folder, text, name=name) for name, text in steps.items()]


def values(file: Path) -> Any:
    return json.loads(file.read_text())


def test_a_new_run_has_a_folder_of_its_own_and_is_the_latest(tmp_path: Path) -> None:
    there = sims(tmp_path, one=TRUE)
    first = RunFolder.create(tmp_path / "work", there, ["run"])
    assert (tmp_path / "work" / "latest").readlink() == Path(first.path.name)
    second = RunFolder.create(tmp_path / "work", there, ["run"])
    assert (tmp_path / "work" / "latest").readlink() == Path(second.path.name)
    assert first.path != second.path
    assert {file.name for file in (tmp_path / "work").iterdir()} == {
        "latest",
        first.path.name,
        second.path.name,
    }


def test_the_manifest_tells_what_is_run_where_and_by_what(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "work", sims(tmp_path, one=TRUE, two=TRUE), ["run", "--jobs", "2"])
    manifest = values(run.path / "manifest.json")
    assert manifest["arguments"] == ["run", "--jobs", "2"]
    assert manifest["sims"][1] == {"name": "two", "file": f"{tmp_path}/two.toml", "folder": "two", "steps": 1}
    assert {"patchbay", "python", "kernel", "started", "user", "folder"} < manifest.keys()


def test_sims_of_one_name_get_folders_of_their_own(tmp_path: Path) -> None:
    sim = loaded(tmp_path, TRUE, head='[sim]\nname = "a/b c"\n')
    run = RunFolder.create(tmp_path / "work", [sim, sim, sim], [])
    assert [outcome.folder.name for outcome in run.outcomes] == ["a-b-c", "a-b-c-2", "a-b-c-3"]


def test_before_anything_runs_all_is_waiting(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "work", sims(tmp_path, one=TRUE), [])
    progress = values(run.path / "progress.json")
    assert (progress["status"], progress["sims"][0]["status"]) == ("waiting", "waiting")
    assert progress["sims"][0]["steps"] == [
        {"step": "step[0]", "title": "run on server", "status": "waiting", "elapsed": None}
    ]


@pytest.mark.kernel
async def test_a_run_leaves_these_files(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "work", sims(tmp_path, good=TRUE, bad=TRUE + FALSE + TRUE), [])
    await run_sims(run.outcomes, run)
    run.close()
    expected = {
        "manifest.json",
        "progress.json",
        "combined-results.json",
        "combined-results.md",
        "good",
        "bad",
    }
    assert {file.name for file in run.path.iterdir()} == expected
    inside = {
        "sim.json",
        "results.json",
        "results.md",
        "events.jsonl",
        "state.json",
        "changes.jsonl",
        "commands.jsonl",
        "nodes",
    }
    assert {file.name for file in (run.path / "bad").iterdir()} == inside
    assert {file.name for file in (run.path / "bad" / "nodes" / "server").iterdir()} == {
        "stdout.log",
        "stderr.log",
    }
    results = values(run.path / "bad" / "results.json")
    assert (results["status"], results["error"].partition("\n")[0]) == (
        "failed",
        "step[1] (run on server): sh exited 1; expected exit status 0",
    )
    assert [(s["status"], s["exit"]) for s in results["steps"]] == [
        ("passed", 0),
        ("failed", 1),
        ("waiting", None),
    ]
    combined = values(run.path / "combined-results.json")
    assert combined["status"] == "failed"
    assert combined["counts"] == {"waiting": 0, "running": 0, "passed": 1, "failed": 1, "interrupted": 0}
    assert [sim["folder"] for sim in combined["sims"]] == ["good", "bad"]
    assert "| [bad](bad/results.md) | failed |" in (run.path / "combined-results.md").read_text()
    assert values(run.path / "bad" / "sim.json")["step"][0] == {
        "action": "run",
        "cmd": ["true"],
        "device": "server",
    }


@pytest.mark.kernel
async def test_a_reader_sees_which_step_runs(tmp_path: Path) -> None:
    file = tmp_path / "run" / "progress.json"
    look = f"until grep -q '\"step\": 1,' {file}; do sleep 0.02; done; cat {file}"  # how often it looks
    words = json.dumps(["sh", "-c", look])
    step = f'[[step]]\nid = "look"\ndevice = "server"\nparser = "json"\ncmd = {words}\n'
    captures = 'captures.one.pick = ".sims.0.steps.0.status"\ncaptures.two.pick = ".sims.0.steps.1.status"\n'
    check = '[[step]]\naction = "assert"\nchecks = ["look.one == passed", "look.two == running"]\n'
    (tmp_path / "run").mkdir()
    run = RunFolder(tmp_path / "run", sims(tmp_path, one=TRUE + step + captures + check), [])
    with trio.fail_after(DEADLINE):
        await run_sims(run.outcomes, run)
    assert run.outcomes[0].error == ""


@pytest.mark.kernel
async def test_as_many_sims_as_jobs_run_at_once(tmp_path: Path) -> None:
    def meet(mine: str, other: str) -> str:
        wait = f"touch {tmp_path}/{mine}; {until_there_is(tmp_path / other)}"
        return f'[[step]]\ndevice = "server"\ncmd = ["sh", "-c", "{wait}"]\n'

    run = RunFolder.create(tmp_path / "work", sims(tmp_path, a=meet("x", "y"), b=meet("y", "x"), c=TRUE), [])
    with trio.fail_after(DEADLINE):
        await run_sims(run.outcomes, run, jobs=2)
    assert {outcome.status for outcome in run.outcomes} == {Status.PASSED}


@pytest.mark.ordinary
@pytest.mark.kernel
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_run_and_what_was_done_is_written(
    number: signal.Signals, tmp_path: Path
) -> None:
    measured = '[[step]]\nid = "m"\ndevice = "server"\ncmd = ["echo", "5"]\ncaptures.v.regex = "5"\n'
    forever = '[[step]]\ndevice = "server"\ncmd = ["sleep", "1000"]\n'
    run = RunFolder.create(tmp_path / "work", sims(tmp_path, a=measured + forever + TRUE, b=TRUE), [])

    def watch(happening: RunEvent) -> None:
        run(happening)
        if has_begun(happening, "step[1]"):
            os.kill(os.getpid(), number)

    assert await run_sims(run.outcomes, watch) is number
    run.close()
    results = values(run.path / "a" / "results.json")
    assert results["status"] == "interrupted"
    assert [step["status"] for step in results["steps"]] == ["passed", "interrupted", "waiting"]
    assert results["steps"][0]["captures"] == {"v": "5"}
    combined = values(run.path / "combined-results.json")
    assert [sim["status"] for sim in combined["sims"]] == ["interrupted", "waiting"]


def agent_of(argv: list[str]) -> int:
    """The process that holds the lab in which a command runs: its parent."""
    (pid,) = (pid for pid, line in descendants(os.getpid()).items() if line == " ".join(argv))
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.kernel
async def test_a_sim_whose_lab_dies_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    sleep = '[[step]]\ndevice = "server"\ncmd = ["sleep", "1000"]\n'
    spawn = '[[step]]\naction = "spawn"\ndevice = "server"\ncmd = ["sleep", "1001"]\n'
    run = RunFolder.create(tmp_path / "work", sims(tmp_path, a=spawn + sleep, b=TRUE), [])

    def watch(happening: RunEvent) -> None:
        run(happening)
        if has_begun(happening, "step[1]") and happening.sim.sim.name == "a":
            os.kill(agent_of(["sleep", "1001"]), signal.SIGKILL)

    await run_sims(run.outcomes, watch)
    assert [outcome.status for outcome in run.outcomes] == [Status.FAILED, Status.PASSED]
    assert run.outcomes[0].error == "the lab's agent is gone, and the lab with it"


@pytest.mark.kernel
async def test_junit_has_a_case_for_each_sim(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "work", sims(tmp_path, good=TRUE, bad=FALSE, never=TRUE), [])
    await run_sims(run.outcomes[:2], run)
    suite = ElementTree.fromstring(as_junit("name", run.outcomes))[0]
    assert {key: suite.get(key) for key in ("name", "tests", "failures", "skipped")} == {
        "name": "name",
        "tests": "3",
        "failures": "1",
        "skipped": "1",
    }
    assert [[child.tag for child in case] for case in suite] == [
        ["system-out"],
        ["failure", "system-out"],
        ["skipped", "system-out"],
    ]
    failure = suite[1][0]
    assert failure.get("message", "").startswith("step[0] (run on server): sh exited 1")
    assert failure.text and failure.text.endswith("<a|b>")


@pytest.mark.kernel
async def test_a_watcher_sees_the_end_last(tmp_path: Path) -> None:
    heard: list[RunEvent] = []
    run = RunFolder.create(tmp_path / "work", sims(tmp_path, one=TRUE), [])
    await run_sims(run.outcomes, heard.append)
    heard = [each for each in heard if not isinstance(each, Tick)]
    assert [type(each).__name__ for each in heard] == ["SimBegan", "StepBegan", "StepEnded", "SimEnded"]
    assert isinstance(heard[-1], SimEnded)
    assert heard[-1].sim.status is Status.PASSED
