"""The fixture `ordinary_user`, on which every test of patchbay without root rests."""

import json
import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ordinary_user import OrdinaryUser

FACTS = """
import json, os, sys, trio, patchbay
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "uid": os.getuid(), "groups": os.getgroups(), "capabilities": int(status["CapEff"], 16),
    "home": os.path.expanduser("~"), "version": sys.version, "patchbay": patchbay.__path__[0],
    "wish": os.environ.get("WISH"),
}))
"""


def test_is_not_root_and_holds_no_privileges(ordinary_user: OrdinaryUser) -> None:
    facts = json.loads(ordinary_user.run([ordinary_user.python, "-c", FACTS]).stdout)
    assert facts["uid"] != 0
    assert 0 not in facts["groups"]
    assert facts["capabilities"] == 0


def test_has_a_line_in_the_files_that_know_accounts_and_a_range_of_ids(ordinary_user: OrdinaryUser) -> None:
    told = ordinary_user.run(["sh", "-c", "id -un; cat /etc/subuid /etc/subgid"]).stdout.splitlines()
    assert told[0] == ordinary_user.name
    if Path("/etc/subuid").exists():
        assert sum(line.startswith(f"{ordinary_user.name}:") for line in told) == 2


def test_is_an_account_that_the_machine_does_not_get(ordinary_user: OrdinaryUser) -> None:
    names = {entry.pw_name for entry in pwd.getpwall()}
    assert (ordinary_user.name in names) == (os.geteuid() != 0)
    if ordinary_user.become:
        assert str(ordinary_user.root) not in Path("/proc/mounts").read_text()


def test_has_the_tests_python_and_packages_and_this_patchbay(ordinary_user: OrdinaryUser) -> None:
    done = ordinary_user.run([ordinary_user.python, "-c", FACTS], env={"WISH": "granted"})
    facts = json.loads(done.stdout)
    assert facts["version"] == sys.version
    assert facts["patchbay"] == str(ordinary_user.root / "patchbay")
    assert facts["home"] == str(ordinary_user.home)
    assert facts["wish"] == "granted"


def test_reads_the_repository(ordinary_user: OrdinaryUser) -> None:
    done = ordinary_user.run(["cat", ordinary_user.root / "README.md"])
    assert done.stdout == (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_does_not_write_to_what_root_lends(ordinary_user: OrdinaryUser) -> None:
    done = ordinary_user.run(["test", "-w", ordinary_user.root / "README.md"], check=False)
    assert done.returncode == 1 or not ordinary_user.become


def test_writes_to_a_folder_of_their_own(ordinary_user: OrdinaryUser) -> None:
    ordinary_user.run(["tee", "note"], input="hello")
    assert (ordinary_user.scratch / "note").read_text(encoding="utf-8") == "hello"


def test_shows_the_output_of_what_failed(ordinary_user: OrdinaryUser) -> None:
    argv = ["sh", "-c", "echo lost >&2; exit 3"]
    assert ordinary_user.run(argv, check=False).returncode == 3
    with pytest.raises(subprocess.CalledProcessError) as caught:
        ordinary_user.run(argv)
    assert "lost" in caught.value.__notes__[0]


def test_a_started_process_is_the_command_itself(ordinary_user: OrdinaryUser) -> None:
    with ordinary_user.popen(["sleep", "1000"]) as process:
        process.terminate()
    assert process.returncode == -signal.SIGTERM


def test_starts_in_the_folder_asked_for_as_the_user_sees_it(ordinary_user: OrdinaryUser) -> None:
    assert ordinary_user.run(["pwd"]).stdout.strip() == str(ordinary_user.scratch)
    assert "sims" in ordinary_user.run(["ls"], cwd=ordinary_user.root).stdout.split()
