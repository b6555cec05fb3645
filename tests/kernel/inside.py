"""What tests see of a lab that no node sees: its own processes and its own namespace."""

from __future__ import annotations

import contextlib
from pathlib import Path

from patchbay.lab.lab import Lab
from tests.leftovers import descendants

__all__ = ["into", "processes_of", "run_in_lab"]


def processes_of(lab: Lab, name: str) -> list[int]:
    """Return the lab's processes of that name, those of nodes too, by this machine's numbers."""
    found = []
    for pid in descendants(lab._core.session.sandbox.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/comm").read_text() == f"{name}\n":
                found.append(pid)
    return found


def into(lab: Lab) -> list[str]:
    """Return the words before a command that let it run beside the lab's tools."""
    # The agent's parent is in the same namespaces as the agent, which enters nodes now and then.
    parent = lab._core.session.sandbox.pid
    pids = f"--pid=/proc/{parent}/ns/pid_for_children"
    return ["nsenter", f"--target={parent}", "--user", "--mount", "--net", pids, "--"]


async def run_in_lab(lab: Lab, *argv: str) -> str:
    """Run a command in the lab's own namespace, where its tools run. Return its output."""
    answer = await lab._core.session.sandbox.agent.request(
        {"lanes": [["", [["exec", None, list(argv), ""]]]]}
    )
    result = answer["results"][0][0]
    assert result["status"] == 0, result["err"]
    return str(result["out"])
