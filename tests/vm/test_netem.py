"""Links by netem, in a kernel that has it: the suite of tests/links, whole, in the guest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from patchbay_vm import uml
from patchbay_vm.kernel import host_has_netem

pytestmark = [pytest.mark.kernel, pytest.mark.measures]

ROOT = Path(__file__).parents[2]
PYTEST = [sys.executable, "-m", "pytest", "--color=no", "-p", "no:cacheprovider", "-q"]
NETEM = {"PATCHBAY_EMULATORS": "netem"}


def number_of_tests() -> int:
    done = subprocess.run(
        [*PYTEST, "--collect-only", "tests/links"],
        cwd=ROOT, env=os.environ | NETEM, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = re.search(r"(\d+) tests collected", done.stdout)
    assert found, done.stdout
    return int(found[1])


@pytest.mark.skipif(host_has_netem(), reason="tests/links has run with netem in the kernel that is here")
@pytest.mark.timeout(3 * 600)
def test_the_suite_of_links_passes_with_netem() -> None:
    """Needs the kernel that `make test` builds; without it this fails."""
    done = uml.run([*PYTEST, "--durations=8", "tests/links"], cwd=ROOT, env=NETEM)
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    assert re.search(rf"^{number_of_tests()} passed", done.stdout, re.MULTILINE)
    assert "skipped" not in done.stdout
