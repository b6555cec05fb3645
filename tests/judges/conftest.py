from __future__ import annotations

import importlib.util
import shutil

import pytest

PROGRAMS = {"turnserver": "coturn", "turnutils_natdiscovery": "coturn", "stun": "stun-client"}
MODULES = {"aioice": "aioice", "stun": "pystun3"}


@pytest.fixture(scope="package", autouse=True)
def judges_are_there() -> None:
    """A judge that is missing is a failure: nobody would notice that it says nothing."""
    missing = {package for program, package in PROGRAMS.items() if not shutil.which(program)}
    missing |= {package for module, package in MODULES.items() if not importlib.util.find_spec(module)}
    assert not missing, f"not installed: {', '.join(sorted(missing))} (packages.txt, requirements.txt)"
