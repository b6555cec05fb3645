"""One suite for both emulators: what a link does is measured at both ends, and does not tell them apart.

By default it runs against the relay, and against netem where this kernel has it; where it has not,
tests/vm runs the same files in a kernel that has, with PATCHBAY_EMULATORS=netem.
"""

from __future__ import annotations

import os

import pytest

from patchbay_vm.kernel import host_has_netem
from tests import mutants

ENVIRONMENT = "PATCHBAY_EMULATORS"


def emulators() -> list[str]:
    wished = os.environ.get(ENVIRONMENT)
    if wished:
        return wished.split(",")
    return ["userspace", "netem"] if host_has_netem() else ["userspace"]


# Of netem's own: run where netem is, be that here or in the other kernel.
collect_ignore = [] if "netem" in emulators() else ["test_read_back.py"]


@pytest.fixture(params=emulators())
def emulator(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def mutated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be wrong on purpose where `make mutants` asks for it."""
    if name := os.environ.get(mutants.ENVIRONMENT):
        mutants.apply(name, monkeypatch)
