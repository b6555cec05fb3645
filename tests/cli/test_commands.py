"""The command line, as a user types it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.in_process import call
from tests.patience import DEADLINE
from tests.processes import run


def test_help_names_every_command(cli: Cli, tmp_path: Path) -> None:
    done = cli("--help")
    summaries = [line[14:] for line in done.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    assert all(summary.endswith(".") and not summary.endswith("...") for summary in summaries), summaries
    assert max(map(len, summaries)) <= 45
    assert done.returncode == 0
    for command in ("run", "plan", "trace", "inspect", "run-in", "shell", "natcheck", "nat-matrix", "doctor"):
        assert f"  {command}" in done.stdout
        assert call(command, "--help", cwd=tmp_path).returncode == 0


def test_plan_prints_what_would_be_run_and_runs_nothing(cli: Cli, lab_file: Path) -> None:
    # strace is the judge: no program is started, no namespace made or entered, no socket opened.
    calls = "execve,fork,vfork,unshare,setns,mount,socket"
    log = lab_file.with_name("calls")
    done = cli("plan", lab_file, before=("strace", "-f", "-e", f"trace={calls}", "-o", str(log)))
    assert done.returncode == 0, done.stderr
    assert "\n# give router 'home router' its namespace\nip netns add home-router\n" in done.stdout
    assert "nsenter --net=/run/netns/laptop ip route add default via 10.0.0.1 dev eth0\n" in done.stdout
    assert "snat ip to 26.0.0.3" in done.stdout
    made = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]
    assert [line for line in made if not line.startswith(("+++", "---"))] == [
        line for line in made if line.startswith("execve(") and "patchbay_cli.main" in line
    ]


@pytest.mark.kernel
def test_plan_and_trace_of_a_file_say_the_same_commands(cli: Cli, lab_file: Path) -> None:
    plan, trace = cli("plan", lab_file).stdout, cli("trace", lab_file).stdout

    def commands(text: str) -> set[str]:
        return {line for line in text.splitlines() if line.startswith(("ip ", "nsenter "))}

    assert commands(plan) == commands(trace)


@pytest.mark.ordinary
@pytest.mark.kernel
def test_trace_gives_a_script_that_needs_nothing_of_patchbay(
    cli: Cli, lab_file: Path, tmp_path: Path
) -> None:
    script = tmp_path / "lab.sh"
    script.write_text(cli("trace", lab_file).stdout)
    ping = ["nsenter", "--net=/run/netns/laptop", "ping", "-c1", f"-w{DEADLINE:g}", "55.0.0.2"]
    done = run(["sh", script, *ping], text=True)
    assert " 1 received" in done.stdout, done.stderr
    bare = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = run(["sh", script], input="ls /run/netns; exit 3\n", text=True, env=bare)
    assert (done.stdout.split(), done.returncode) == (["dc", "home-router", "ix", "laptop", "server"], 3)


@pytest.mark.kernel
def test_trace_in_other_formats_and_of_one_node(
    cli: Cli, lab_file: Path, environment: dict[str, str]
) -> None:
    records = json.loads(cli("trace", lab_file, "--format", "json").stdout)
    assert [record["seq"] for record in records] == sorted(record["seq"] for record in records)
    assert {record["tool"] for record in records} == {"ip", "nft", "sysctl", "tee"}
    sysctl = next(record for record in records if record["tool"] == "sysctl")
    assert sysctl["how"] == "written through /proc/sys"
    one = json.loads(cli("trace", lab_file, "--format", "json", "--node", "home router").stdout)
    assert {record["owner"].partition("#")[0] for record in one} == {"home-router"}
    table = cli("trace", lab_file, "--format", "table", env=environment).stdout
    assert "ip netns add laptop" in table
    part = cli("trace", lab_file, "--node", "home router").stdout
    assert part.startswith("# 'home router' in the lab of") and "to be read" in part
    assert "unshare" not in part and "ip netns add home-router" in part
    unknown = cli("trace", lab_file, "--node", "labtop")
    assert unknown.returncode == 2
    assert "did you mean 'laptop'" in unknown.stderr


@pytest.mark.kernel
def test_trace_reads_the_folder_of_a_run(cli: Cli, lab_file: Path, tmp_path: Path) -> None:
    sim = tmp_path / "sim.toml"
    sim.write_text(lab_file.read_text() + '\n[[step]]\naction = "run"\ndevice = "laptop"\ncmd = ["true"]\n')
    assert cli("run", sim).returncode == 0
    whole = cli("trace", tmp_path / ".patchbay-work" / "latest")
    part = cli("trace", tmp_path / ".patchbay-work" / "latest" / "sim")
    assert whole.returncode == 0
    assert whole.stdout.splitlines()[2:] == part.stdout.splitlines()[2:]
    assert "ip netns add laptop\n" in part.stdout
    nothing = cli("trace", tmp_path / ".patchbay-work")
    assert nothing.returncode == 2
    assert "Traceback" not in nothing.stderr


@pytest.mark.ordinary
@pytest.mark.kernel
def test_doctor_tells_what_there_is(cli: Cli) -> None:
    done = cli("doctor")
    assert done.returncode == 0, done.stdout
    assert "labs can be opened here" in done.stdout
    assert "ok    nft " in done.stdout


WITHOUT_NFT = (
    'mount --bind /dev/null "$(command -v nft)" && mount --bind /dev/null "$(command -v tc)" && exec "$@"'
)
FORBIDDEN = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'


@pytest.mark.ordinary
@pytest.mark.kernel
@pytest.mark.parametrize(
    "words", [("doctor",), ("run", "sim.toml"), ("inspect", "sim.toml")], ids=lambda w: w[0]
)
def test_missing_tools_are_all_named_with_the_line_that_repairs_them(
    cli: Cli, tmp_path: Path, lab_file: Path, words: tuple[str, ...]
) -> None:
    text = lab_file.read_text() + '\n[[step]]\naction = "run"\ndevice = "laptop"\ncmd = ["true"]\n'
    (tmp_path / "sim.toml").write_text(text)
    done = cli(*words, before=("unshare", "-rm", "sh", "-c", WITHOUT_NFT, "sh"))
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    for line in ("nft", "tc", "sudo apt-get install nftables", "sudo apt-get install iproute2"):
        assert line in said
    assert "Traceback" not in said


@pytest.mark.ordinary
@pytest.mark.kernel
@pytest.mark.parametrize("command", ["doctor", "trace"])
def test_forbidden_user_namespaces_are_reported_with_the_line_that_allows_them(
    cli: Cli, lab_file: Path, command: str
) -> None:
    words = (command,) if command == "doctor" else (command, lab_file)
    done = cli(*words, before=("unshare", "-r", "sh", "-c", FORBIDDEN, "sh"))
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "sudo sysctl -w user.max_user_namespaces=15000" in said
    assert "Traceback" not in said


# What container engines hide; the kernel then refuses another instance that would show it (fs/namespace.c,
# mount_too_revealing).
MASKED = {
    "sys": 'mount -t tmpfs none /sys/kernel && exec "$@"',
    "proc": 'mount -t tmpfs none /proc/sys/fs && exec "$@"',
}


@pytest.mark.ordinary
@pytest.mark.kernel
@pytest.mark.parametrize("what", MASKED)
def test_a_container_with_masked_parts_has_labs_and_doctor_reports_what_they_lack(
    cli: Cli, lab_file: Path, tmp_path: Path, what: str
) -> None:
    before = ("unshare", "-rm", "sh", "-c", MASKED[what], "sh")
    doctor = cli("doctor", before=before)
    assert doctor.returncode == 0, doctor.stdout
    assert f"note  own /{what}" in doctor.stdout
    assert "does not work: mount: " in doctor.stdout
    assert "repair: start the container with --security-opt systempaths=unconfined" in doctor.stdout
    assert re.search(f"ok    own /{what} +works", cli("doctor").stdout)
    sim = tmp_path / "sim.toml"
    check = """test $(hostname) = laptop; getent hosts laptop; ping -c1 -w60 ${ip.server}; kill $$; sleep 9"""
    step = f'action = "run"\ndevice = "laptop"\ncmd = ["sh", "-ec", "{check}"]\nexpect_exit = -15\n'
    # Large labs open settings of namespaces in fresh instances of /proc, which are refused here.
    many = '[device.many]\ncount = 60\n[device.many.eth0]\ngateway = "home router"\n'
    sim.write_text(f"{lab_file.read_text()}\n{many}[[step]]\n{step}")
    done = cli("run", sim, before=before)
    assert done.returncode == 0, done.stdout


BAD_FILES = {
    "missing": (None, "cannot be read: No such file or directory"),
    "empty": (b"", "is empty"),
    "binary": (b"\x7fELF\xff\xfe\x00", "is not a text file"),
    "no TOML": (b"router = [", "is not TOML"),
    "unknown key": (b'[sim]\n[[router]]\nname = "a"\npresett = "home"\n', "did you mean 'preset'?"),
    "wrong type": (b'[sim]\n[[router]]\nname = "a"\n[device]\nx = 3\n', "device.x: found an integer (3)"),
    "unknown router": (b'[sim]\n[device.x.eth0]\ngateway = "a"\n', "unknown router 'a'"),
}


@pytest.mark.parametrize("command", ["plan", "trace", "inspect", "run"])
@pytest.mark.parametrize("what", BAD_FILES)
def test_a_bad_file_is_reported_plainly_and_nothing_is_left(tmp_path: Path, command: str, what: str) -> None:
    content, message = BAD_FILES[what]
    path = tmp_path / "odd name ü.toml"
    if content is not None:
        path.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    done = call(command, path, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert str(path) in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_plan_refuses_a_sim_whose_steps_run_would_refuse(tmp_path: Path, lab_file: Path) -> None:
    sim = tmp_path / "sim.toml"
    step = '\n[[step]]\naction = "run"\ndevice = "laptop"\ncmd = ["true"]\n'
    sim.write_text(lab_file.read_text() + step)
    assert call("plan", sim, cwd=tmp_path).returncode == 0
    sim.write_text(lab_file.read_text() + step.replace('"laptop"', '"lptop"'))
    done = call("plan", sim, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "step[0].device" in done.stderr and "did you mean 'laptop'" in done.stderr


@pytest.mark.parametrize("command", ["plan", "trace", "inspect", "run"])
def test_a_file_that_is_not_there_ends_the_process_plainly(cli: Cli, command: str) -> None:
    done = cli(command, "none.toml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "none.toml: cannot be read: No such file or directory\n"


def test_the_page_of_pairs_of_nats_is_what_the_command_computes(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "nat-matrix.md").read_text()
    done = call("nat-matrix", "--theory", cwd=tmp_path)
    tables = [line for line in done.stdout.splitlines() if line.startswith(("|", "#"))]
    assert len(tables) > 40
    assert [line for line in page.splitlines() if line.startswith(("|", "#"))] == tables
