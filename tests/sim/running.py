"""Running a sim of a few steps on a real kernel."""

import json
from pathlib import Path

from patchbay.report.run_folder import RunFolder
from patchbay.sim.live.runner import run_sims
from patchbay.sim.spec.outcome import RunEvent, SimOutcome, Status, Watch
from tests.sim.sim_files import loaded

TOPOLOGY = """
[[router]]
name = "dc"
preset = "datacenter"
[device.a.eth0]
gateway = "dc"
[device.b.eth0]
gateway = "dc"
[device.pair]
count = 2
[device.pair.eth0]
gateway = "dc"
[device.two]
default_via = "eth1"
[device.two.eth0]
gateway = "dc"
[device.two.eth1]
gateway = "dc"
"""

P, F, W, STOPPED = Status.PASSED, Status.FAILED, Status.WAITING, Status.INTERRUPTED


async def outcome_of(
    folder: Path, steps: str, head: str = "", *, watch: Watch = lambda _: None
) -> SimOutcome:
    """What becomes of a sim with these steps. `watch` sees what happens."""
    sim = loaded(folder, steps, head=head, topology=TOPOLOGY)
    (folder / "run").mkdir()
    run = RunFolder(folder / "run", [sim], [])

    def both(happening: RunEvent) -> None:
        run(happening)
        watch(happening)

    await run_sims(run.outcomes, both)
    run.close()
    return run.outcomes[0]


def statuses(outcome: SimOutcome) -> list[Status]:
    return [step.status for step in outcome.steps]


def log(outcome: SimOutcome, node: str, pipe: str = "stdout") -> str:
    return (outcome.folder / "nodes" / node / f"{pipe}.log").read_text()


def sh(script: str, more: str = "", *, device: str = "a") -> str:
    """A step that runs a shell script."""
    return f'[[step]]\ndevice = "{device}"\ncmd = ["sh", "-c", {json.dumps(script)}]\n{more}\n'
