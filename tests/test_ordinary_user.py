"""The fixture `ordinary_user`, on which every test of patchbay without root rests."""

import json
import signal
import subprocess
import sys

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


def test_has_the_tests_python_and_packages_and_this_patchbay(ordinary_user: OrdinaryUser) -> None:
    done = ordinary_user.run([ordinary_user.python, "-c", FACTS], env={"WISH": "granted"})
    facts = json.loads(done.stdout)
    assert facts["version"] == sys.version
    assert facts["patchbay"] == str(ordinary_user.root / "patchbay")
    assert facts["home"] == str(ordinary_user.home)
    assert facts["wish"] == "granted"


def test_reads_the_repository(ordinary_user: OrdinaryUser) -> None:
    readme = ordinary_user.root / "README.md"
    assert ordinary_user.run(["cat", readme]).stdout == readme.read_text(encoding="utf-8")


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
    with ordinary_user.popen(["sleep", "60"]) as process:
        process.terminate()
    assert process.returncode == -signal.SIGTERM
