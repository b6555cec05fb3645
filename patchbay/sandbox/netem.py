"""The question whether the kernel has netem: tried in a lab, or answered by the machine's files."""

from __future__ import annotations

import platform
from pathlib import Path

from patchbay.sandbox.sandbox import Sandbox

__all__ = ["TRIAL", "expected", "has_netem"]

# On the loopback of the lab's own namespace, where nobody sends anything.
TRIAL = ["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
_END = ["tc", "qdisc", "del", "dev", "lo", "root"]


async def has_netem(sandbox: Sandbox) -> bool:
    """Try it: a module is loaded on demand, so files alone do not tell."""
    steps = [["exec", None, TRIAL, ""], ["exec", None, _END, ""]]
    answer = await sandbox.agent.request({"lanes": [["", steps]]})
    return bool(answer["results"][0][0]["status"] == 0)


def expected() -> bool:
    """Return True if netem is in this kernel or one of its modules, which needs no privilege to see."""
    modules = Path("/lib/modules") / platform.release()
    places = (Path("/proc/kallsyms"), modules / "modules.dep")
    return any(_mentions(place, "netem") for place in places)


def _mentions(path: Path, word: str) -> bool:
    try:
        with path.open(errors="replace") as file:
            return any(word in line for line in file)
    except OSError:
        return False
