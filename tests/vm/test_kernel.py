"""A command in a kernel of its own: what comes back from it, what it can do, and that it leaves nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals
from typing import Any

import attrs
import pytest

from patchbay_vm import kernel as kernels
from patchbay_vm.errors import GuestDiedError, GuestTimeoutError, KernelError
from patchbay_vm.kernel import Edit, Ingredients, host_has_netem, kernel_path
from patchbay_vm.uml import run
from tests.patience import DEADLINE, wait_until
from tests.processes import popen

ROOT = Path(__file__).parents[2]
MADE_FROM = Ingredients("6.12.1-1", "gcc 12", "x86_64", "CONFIG_NET=y\n", (Edit("a.c", "1", "2"),))

# Two namespaces, a veth between them with 25 ms in one direction.
DELAY = """
set -e
unshare --net sleep 60 & other=$!
# Until unshare has unshared.
while [ "$(readlink /proc/$other/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do :; done
ip link add name a type veth peer name b netns $other
ip address add 192.0.2.1/24 dev a
ip link set dev a up
nsenter --net --target $other sh -c 'ip address add 192.0.2.2/24 dev b; ip link set dev b up'
tc qdisc add dev a root netem delay 25ms
ping -c 20 -i 0.05 192.0.2.2
"""


@pytest.fixture(scope="module")
def kernel() -> Path:
    """The kernel of the cache: whoever runs the tests builds it first, as `make test` does."""
    try:
        path = kernel_path()
        why = "" if path.exists() else f"{path} is not there"
    except KernelError as error:
        why = str(error)
    if not why:
        return path
    if host_has_netem():
        pytest.skip(f"the host's kernel has netem and no other was built: {why}")
    pytest.fail(f"neither this kernel nor another has netem: {why}. Build one: make kernel", pytrace=False)


@pytest.mark.kernel
def test_status_and_output_come_back(kernel: Path) -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout=DEADLINE)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


@pytest.mark.kernel
def test_the_command_is_root_where_the_caller_is(kernel: Path) -> None:
    done = run(
        ["sh", "-c", 'id -u; pwd; echo "$HOME $COLOUR"; uname -n'],
        timeout=DEADLINE,
        env={"COLOUR": "a b"},
        cwd=ROOT,
    )
    assert done.stdout == f"0\n{ROOT}\n/root a b\numl\n"


@pytest.mark.kernel
def test_output_of_any_size_and_bytes_is_written_while_it_comes(kernel: Path, tmp_path: Path) -> None:
    script = f"{sys.executable} -c 'print(*range(300_000))'; printf '\\377\\r\\n\\004'"
    with (tmp_path / "out").open("w+b") as out:
        done = run(["sh", "-c", script], timeout=DEADLINE, stdout=out)
    expected = " ".join(map(str, range(300_000))).encode() + b"\n\xff\r\n\x04"
    assert (tmp_path / "out").read_bytes() == expected
    assert not done.stdout


@pytest.mark.kernel
def test_the_command_line_streams_and_ends_with_the_commands_status(kernel: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "patchbay_vm.uml", "--share", str(tmp_path), "--"]
    script = f"echo first; until [ -e {tmp_path}/heard ]; do :; done; kill -KILL $$"
    process = popen([*argv, "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "first\n"
    (tmp_path / "heard").touch()
    assert process.wait() == 128 + 9


@pytest.mark.kernel
def test_a_command_that_cannot_be_started_is_reported_as_by_a_shell(kernel: Path) -> None:
    done = run(["no-such-program"], timeout=DEADLINE)
    assert done.returncode == 127
    assert "no-such-program" in done.stderr


@pytest.mark.kernel
def test_netem_delays(kernel: Path) -> None:
    done = run(["sh", "-c", DELAY], timeout=DEADLINE)
    found = re.search(r"20 received.*\nrtt min/avg/max/mdev = ([\d.]+)/", done.stdout)
    assert found, done
    assert 25 <= float(found[1]) < 50


@pytest.mark.kernel
def test_labs_can_be_made_by_root_without_privileges(kernel: Path) -> None:
    unshare = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
    done = run([*unshare, "sh", "-c", "echo $$; ip -o link"], timeout=DEADLINE)
    assert done.returncode == 0, done
    assert re.fullmatch(r"1\n1: lo: .*\n", done.stdout)


@pytest.mark.kernel
def test_only_shared_folders_are_written_through(kernel: Path, tmp_path: Path) -> None:
    for name in ("shared", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_text("old")
    files = "shared/old shared/new other/old other/new /etc/patchbay-vm-test"
    script = f"cat */old; for file in {files}; do echo written > $file; done; cat other/new"
    done = run(["sh", "-c", script], timeout=DEADLINE, cwd=tmp_path, shares=[tmp_path / "shared"])
    assert (done.returncode, done.stdout) == (0, "oldoldwritten\n")
    found = {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.glob("*/*")}
    assert found == {"shared/old": "written\n", "shared/new": "written\n", "other/old": "old"}
    assert not Path("/etc/patchbay-vm-test").exists()


# How a guest ends


@pytest.fixture
def own_kernel(kernel: Path, tmp_path: Path) -> Path:
    """A copy, by whose name this test's processes are told from others'."""
    return Path(shutil.copy(kernel, tmp_path / "own-kernel"))


def processes_of(program: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "exe").readlink() == program:
                found.append(process.name)
        except OSError:
            continue
    return found


@pytest.mark.kernel
def test_a_command_that_does_not_end_is_ended_in_time(own_kernel: Path) -> None:
    said, timeout = "", 1.0
    while "begun" not in said:  # a timeout that counts the guest's start may end before the command begins
        timeout *= 2
        assert timeout < DEADLINE
        with pytest.raises(GuestTimeoutError, match=f"did not end within {timeout:g} s") as caught:
            run(
                ["sh", "-c", "echo begun; sleep 100 & while :; do :; done"],
                timeout=timeout,
                kernel=own_kernel,
            )
        said = str(caught.value)
        assert processes_of(own_kernel) == []


@pytest.mark.kernel
def test_what_the_command_left_running_ends_with_it(own_kernel: Path) -> None:
    done = run(["sh", "-c", "setsid sleep 100 & echo begun"], timeout=DEADLINE, kernel=own_kernel)
    assert done.stdout == "begun\n"
    assert processes_of(own_kernel) == []


@pytest.mark.kernel
@pytest.mark.parametrize("number", [SIGINT, SIGTERM, SIGKILL], ids=lambda number: number.name)
def test_a_guest_does_not_outlive_its_runner(own_kernel: Path, number: Signals) -> None:
    argv = [sys.executable, "-m", "patchbay_vm.uml", "--kernel", str(own_kernel), "--", "sh", "-c"]
    runner = popen([*argv, "echo up; while :; do :; done"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert runner.stdout
    assert runner.stdout.readline() == b"up\n"
    assert processes_of(own_kernel)
    runner.send_signal(number)
    wait_until(lambda: not processes_of(own_kernel))
    runner.wait()


@pytest.mark.kernel
def test_a_guest_that_dies_shows_the_end_of_its_console(own_kernel: Path) -> None:
    with pytest.raises(GuestDiedError, match="physical memory"):
        run(["true"], timeout=DEADLINE, mem=1, kernel=own_kernel)


# The cache


@pytest.mark.parametrize(
    "change",
    [
        {"source": "6.12.1-2"},
        {"compiler": "gcc 14"},
        {"machine": "i686"},
        {"config": "CONFIG_NET=y\nCONFIG_TUN=y\n"},
        {"edits": ()},
    ],
    ids=str,
)
def test_a_kernel_has_another_name_when_made_from_something_else(change: dict[str, Any]) -> None:
    assert attrs.evolve(MADE_FROM, **change).name != MADE_FROM.name == attrs.evolve(MADE_FROM).name


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernel_path(MADE_FROM) == tmp_path / "patchbay" / "kernels" / MADE_FROM.name / "linux"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert kernel_path(MADE_FROM).is_relative_to("/home/somebody/.cache")


@pytest.fixture
def recorded_make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Ingredients]:
    """An empty cache, and a build that notes what it makes a kernel from."""
    made: list[Ingredients] = []

    def make(made_from: Ingredients, target: Path, say: kernels.Say) -> None:
        made.append(made_from)
        target.touch()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernels, "ingredients", lambda: MADE_FROM)
    monkeypatch.setattr(kernels, "_build", make)
    return made


def test_a_kernel_is_built_once_and_again_when_its_config_changes(
    monkeypatch: pytest.MonkeyPatch, recorded_make: list[Ingredients]
) -> None:
    first = kernels.build()
    assert kernels.build() == first
    changed = attrs.evolve(MADE_FROM, config="")
    monkeypatch.setattr(kernels, "ingredients", lambda: changed)
    assert kernels.build() != first
    assert recorded_make == [MADE_FROM, changed]


def test_of_two_builds_at_once_the_second_waits_for_the_first(
    monkeypatch: pytest.MonkeyPatch, recorded_make: list[Ingredients]
) -> None:
    said: list[str] = []
    make = kernels._build

    def make_until_somebody_waits(*args: Any) -> None:
        wait_until(lambda: said)
        make(*args)

    monkeypatch.setattr(kernels, "_build", make_until_somebody_waits)
    builds = [threading.Thread(target=kernels.build, args=[said.append]) for _ in range(2)]
    for build in builds:
        build.start()
    for build in builds:
        build.join()
    assert recorded_make == [MADE_FROM]
    assert said == ["waiting for another build of the same kernel"]


def test_a_missing_tool_is_reported_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "NEEDS", {"flex": "no-such-program", "make": "sh", "xz-utils": "/no/file"})
    with pytest.raises(KernelError, match=r"apt-get install --no-install-recommends flex xz-utils$"):
        kernels.ingredients()


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def plant(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_program_of_the_host_that_fails_is_named_with_its_last_words(programs: Path) -> None:
    plant(programs / "gcc", "echo no such option >&2; exit 3")
    with pytest.raises(KernelError, match=r"^gcc --version: no such option$"):
        kernels._output_of(["gcc", "--version"])


def test_program_of_the_host_that_fails_silently_is_named_with_its_status(programs: Path) -> None:
    plant(programs / "gcc", "exit 3")
    with pytest.raises(KernelError, match=r"^gcc --version: exit status 3$"):
        kernels._output_of(["gcc", "--version"])


def test_program_that_the_host_lacks_is_named(programs: Path) -> None:
    with pytest.raises(KernelError, match=r"^gcc --version: there is no program gcc in PATH$"):
        kernels._output_of(["gcc", "--version"])


def test_program_of_the_host_that_cannot_start_is_one_plain_error(programs: Path) -> None:
    (programs / "gcc").write_text("#!/no/interpreter\n")
    (programs / "gcc").chmod(0o755)
    with pytest.raises(KernelError, match=r"^gcc --version: .*No such file"):
        kernels._output_of(["gcc", "--version"])


def test_program_of_the_host_sees_the_variables_of_now(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLOUR", "a b")
    plant(programs / "gcc", 'echo "$COLOUR $1"')
    assert kernels._output_of(["gcc", "c  d"]) == "a b c  d"


@pytest.mark.parametrize(("status", "expected"), [(0, True), (2, False)], ids=["accepted", "refused"])
def test_host_has_netem_if_the_trial_succeeds(programs: Path, status: int, expected: bool) -> None:
    plant(programs / "unshare", f"exit {status}")
    assert host_has_netem() is expected


def test_the_packages_that_are_asked_for_are_those_that_setup_installs() -> None:
    done = subprocess.run(
        ["sh", ROOT / "setup.sh", "listed", "kernel"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == list(kernels.NEEDS)


def test_a_failing_step_of_a_build_shows_the_end_of_its_output(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(kernels, "ARCHIVE", str(tmp_path / "no-archive"))
    with pytest.raises(KernelError, match=r"(?s)tar .*failed with 2.*no-archive: Cannot open"):
        kernels._build(MADE_FROM, tmp_path / "linux", lambda _: None)
    assert list(tmp_path.iterdir()) == []
