"""A program with a lab, for tests that end it in every way. Run with the way as its argument."""

from __future__ import annotations

import json
import os
import signal
import sys

import trio

import patchbay
from patchbay.sandbox import process

# One of the lab's processes takes no notice of SIGTERM: it need not be waited for as long as others' may.
process.GRACE = 0.2

SPEC = {
    "router": [{"name": "dc", "preset": "datacenter"}, {"name": "home", "preset": "home"}],
    "device": {"server": {"eth0": {"gateway": "dc"}}, "laptop": {"eth0": {"gateway": "home"}}},
}


async def main(way: str) -> None:
    with trio.CancelScope() as scope:
        async with patchbay.open_lab(SPEC) as lab:
            await hold(way, lab, scope)


async def hold(way: str, lab: patchbay.Lab, scope: trio.CancelScope) -> None:
    laptop = lab.device("laptop")
    held = [laptop.socket(), lab.device("server").socket()]
    await laptop.call(os.getpid)
    children = [laptop.popen(["sleep", "1000"]), lab.device("server").popen(["sleep", "1000"])]
    stubborn = "trap '' TERM INT HUP; echo ready; while :; do sleep 1; done"
    async with laptop.open_process(["sh", "-c", stubborn], stdout=-1) as child:
        assert child.stdout
        await child.stdout.receive_some()
        state = {
            "agent": lab._core.session.sandbox.pid,
            "namespaces": [view.namespace for view in lab._core.session._views.values()],
        }
        print(json.dumps(state), flush=True)
        await end(way, lab, scope)
    del held, children


async def end(way: str, lab: patchbay.Lab, scope: trio.CancelScope) -> None:
    if way in ("normal", "exception", "cancel", "agent killed"):
        await trio.to_thread.run_sync(sys.stdin.readline)
    if way == "exception":
        raise LookupError("the block's own")
    if way == "cancel":
        scope.cancel()
    elif way == "agent killed":
        os.kill(lab._core.session.sandbox.pid, signal.SIGKILL)
    if way != "normal":
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
