"""`patchbay run`, as it is typed."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import processes
from tests.cli.in_process import call
from tests.patience import DEADLINE
from tests.processes import popen
from tests.sim.sim_files import until_there_is, write_sim

pytestmark = pytest.mark.kernel

REPOSITORY = Path(__file__).parents[2]
RUN = [sys.executable, "-m", "patchbay_cli.main", "run"]
SHIPPED = sorted(file.stem for file in (REPOSITORY / "sims").glob("*.toml"))

TRUE = '[[step]]\nid = "a"\ndevice = "server"\ncmd = ["echo", "rtt 5"]\ncaptures.rtt.regex = "rtt (.)"\n'
MEASURED = TRUE + 'results.latency_ms = ".rtt"\n'
FALSE = '[[step]]\nid = "b"\ndevice = "server"\ncmd = ["sh", "-c", "echo lost >&2; false"]\n'


def run(
    folder: Path, *arguments: str, before: Sequence[str] = (), timeout: float = DEADLINE
) -> subprocess.CompletedProcess[str]:
    return processes.run([*before, *RUN, *arguments], cwd=folder, text=True, timeout=timeout)


def test_the_shipped_sims_pass(tmp_path: Path) -> None:
    done = run(tmp_path, str(REPOSITORY / "sims"), "--jobs", "2", timeout=8 * DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr
    combined = json.loads((tmp_path / ".patchbay-work" / "latest" / "combined-results.json").read_text())
    assert {sim["sim"]: sim["status"] for sim in combined["sims"]} == dict.fromkeys(SHIPPED, "passed")


def test_all_passed_is_0_and_one_failed_is_1(tmp_path: Path) -> None:
    write_sim(tmp_path, MEASURED, name="good")
    assert run(tmp_path, "good.toml").returncode == 0
    write_sim(tmp_path, FALSE, name="bad")
    assert run(tmp_path, ".").returncode == 1


def test_elsewhere_than_on_a_terminal_there_is_a_line_for_each_step(tmp_path: Path) -> None:
    write_sim(tmp_path, MEASURED + FALSE, name="it")
    done = run(tmp_path, "it.toml", "--work-dir", "w")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["sim it: step 1/2 a (run on server)", "sim it: step 2/2 b (run on server)"]
    assert lines[2].startswith("sim it: failed in ")
    assert "a: latency 5 ms" in done.stdout
    failure = done.stdout.partition("it failed\n")[2]
    assert failure.startswith("step[1] 'b' (run on server): sh exited 1; expected exit status 0\n")
    assert f"  files      w/{(tmp_path / 'w' / 'latest').readlink()}/it" in failure
    assert done.stderr == ""


def test_on_a_terminal_the_steps_come_and_go(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    words = json.dumps(["sh", "-c", until_there_is(seen)])
    write_sim(tmp_path, TRUE + f'[[step]]\ndevice = "server"\ncmd = {words}\n', name="it")
    ours, theirs = pty.openpty()
    ends: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = popen([*RUN, "it.toml"], cwd=tmp_path, env=environment, **ends)
    os.close(theirs)
    text = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        # Reading from a terminal whose other end was closed is EIO on Linux: pty(7).
        with contextlib.suppress(OSError):
            while data := terminal.read(4096):
                text += data
                if b"step 2/2 run on server" in text:
                    seen.touch()
    assert process.wait(DEADLINE) == 0
    assert "step 2/2 run on server" in text.decode()
    assert "sim it: step" not in text.decode()
    assert "1 of 1 sims passed" in text.decode()


def test_verbose_shows_what_is_printed_and_captured(tmp_path: Path) -> None:
    write_sim(tmp_path, TRUE, name="it")
    done = run(tmp_path, "it.toml", "--verbose")
    assert "sim it: server stdout| rtt 5\n" in done.stdout
    assert "sim it: step 1/1 passed in " in done.stdout
    assert ": rtt = 5\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.toml"], "none.toml: cannot be read: No such file or directory\n"),
        (["bad.toml"], "bad.toml:step[0].device: unknown device 'x'"),
        (["lab.toml"], "lab.toml: is a lab file: it has no [sim] and no [[step]]"),
        ([], "no sim named, and no patchbay.toml here or further up that names some\n"),
        (["good.toml", "--timeout", "soon"], "--timeout: found 'soon'; accepted: a duration"),
        (["good.toml", "--work-dir", "good.toml"], "cannot write to good.toml"),
        (["good.toml", "--junit", "good.toml/x"], "cannot write to good.toml"),
    ],
    ids=["no file", "bad step", "lab file", "nothing", "bad timeout", "bad folder", "bad junit file"],
)
def test_bad_input_is_2_and_is_reported_plainly(arguments: list[str], message: str, tmp_path: Path) -> None:
    write_sim(tmp_path, TRUE, name="good")
    write_sim(tmp_path, TRUE.replace("server", "x"), name="bad")
    write_sim(tmp_path, "", name="lab")
    done = call("run", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)


@pytest.mark.ordinary
def test_a_host_that_cannot_run_labs_is_2(tmp_path: Path) -> None:
    write_sim(tmp_path, TRUE, name="it")
    # A user namespace in which no further ones may be made.
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    before = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"]
    done = run(tmp_path, "it.toml", before=before)
    assert done.returncode == 2, done.stdout
    assert "this machine cannot run a lab" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_timeout_given_is_used_instead_of_the_files_own(tmp_path: Path) -> None:
    waits = '[[step]]\naction = "wait"\nduration = "1000s"\n'
    write_sim(tmp_path, waits, head='[sim]\ntimeout = "999s"', name="it")
    done = run(tmp_path, "it.toml", "--timeout", "300ms")
    assert done.returncode == 1
    assert "the sim did not end within its timeout of 300ms" in done.stdout


def test_junit_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    write_sim(tmp_path, MEASURED, name="it")
    assert run(tmp_path, "it.toml", "--junit", "deep/er/junit.xml").returncode == 0
    assert '<testcase classname="patchbay" name="it"' in (tmp_path / "deep" / "er" / "junit.xml").read_text()


def test_the_project_file_names_the_sims(tmp_path: Path) -> None:
    (tmp_path / "sims").mkdir()
    (tmp_path / "deeper").mkdir()
    write_sim(tmp_path / "sims", TRUE, name="it")
    (tmp_path / "patchbay.toml").write_text('simulations = "sims/*.toml"')
    done = run(tmp_path / "deeper")
    assert (done.returncode, "sim it: passed" in done.stdout) == (0, True)


@pytest.mark.ordinary
def test_ctrl_c_ends_it_with_130_and_the_results_so_far(tmp_path: Path) -> None:
    write_sim(tmp_path, MEASURED + '[[step]]\naction = "wait"\nduration = "1000s"\n', name="it")
    with popen([*RUN, "it.toml"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if "step 2/2" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
    assert process.returncode == 130
    assert "sim it: interrupted in" in rest
    assert "a: latency 5 ms" in rest
    results = json.loads((tmp_path / ".patchbay-work" / "latest" / "it" / "results.json").read_text())
    assert [step["status"] for step in results["steps"]] == ["passed", "interrupted"]


def test_help_tells_what_the_options_do(tmp_path: Path) -> None:
    text = call("run", "--help", cwd=tmp_path).stdout
    for word in (
        "--work-dir",
        "--jobs",
        "--timeout",
        "--verbose",
        "--junit",
        "patchbay.toml",
        "130 after Ctrl-C",
    ):
        assert word in " ".join(text.split())
