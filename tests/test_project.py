"""What a project is known by: its licence, and that others' machines run its tests."""

import warnings
from pathlib import Path

import pytest
import tomli
import yaml

ROOT = Path(__file__).parents[1]


def test_both_licences_are_there_and_named() -> None:
    project = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "MIT OR Apache-2.0"
    files = sorted(file.name for pattern in project["license-files"] for file in ROOT.glob(pattern))
    assert files == ["LICENSE-APACHE", "LICENSE-MIT"]
    assert "Apache License" in (ROOT / "LICENSE-APACHE").read_text()
    assert "MIT License" in (ROOT / "LICENSE-MIT").read_text()


def test_the_workflow_runs_the_tests_where_labs_are_allowed() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    (job,) = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == ["sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0", "make test"]
    assert job["runs-on"] == "ubuntu-24.04"
    # `on` is a boolean of YAML 1.1.
    assert set(workflow[True]) == {"push", "pull_request"}


def test_a_warning_fails_a_test() -> None:
    with pytest.raises(UserWarning, match="of any kind"):
        warnings.warn("of any kind", stacklevel=1)


def test_what_contributing_names_is_a_target_of_make() -> None:
    targets = {line.partition(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if ":" in line}
    named = [
        line.split("`")[1]
        for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines()
        if "| `make" in line
    ]
    assert len(named) >= 6
    assert {name.removeprefix("make ") for name in named} <= targets
