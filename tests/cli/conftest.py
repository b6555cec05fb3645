from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.processes import run

Cli = Callable[..., subprocess.CompletedProcess[str]]

LAB = """
[[router]]
name = "dc"
preset = "datacenter"

[[router]]
name = "home router"
preset = "home"

[device.server.eth0]
gateway = "dc"

[device.laptop.eth0]
gateway = "home router"
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs `patchbay ...` in a folder of its own."""

    def patchbay(
        *words: str | Path, before: tuple[str, ...] = (), **options: Any
    ) -> subprocess.CompletedProcess[str]:
        argv = [*before, sys.executable, "-m", "patchbay_cli.main", *map(str, words)]
        return run(argv, text=True, **{"cwd": tmp_path, **options})

    return patchbay


@pytest.fixture
def lab_file(tmp_path: Path) -> Path:
    path = tmp_path / "a lab.toml"
    path.write_text(LAB)
    return path


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200", "TERM": "dumb"}
