#!/usr/bin/python3
"""The time Mininet takes for a lab, to compare patchbay's with.

    /usr/bin/python3 mininet_lab.py HOSTS [--verify]

Builds HOSTS hosts on one Linux bridge (no router, no nft, no IPv6 addresses, no
controller) and prints {"hosts":N,"build_ms":..}; importing Mininet and taking the
lab down are not in the time.  --verify lets the first host ping the last one
afterwards.  Needs root and Debian's packages mininet and bridge-utils; exits 3
if they are missing.
"""

import json
import os
import resource
import shutil
import sys
import time
from typing import Any, NoReturn

INSIDE = "MININET_LAB_INSIDE"


def missing(what: str) -> NoReturn:
    print(f"mininet_lab: {what}", file=sys.stderr)
    sys.exit(3)


def main() -> int:
    args = [a for a in sys.argv[1:] if a != "--verify"]
    if len(args) != 1 or not args[0].isdigit() or int(args[0]) < 1:
        sys.exit("usage: mininet_lab.py HOSTS [--verify]")
    hosts = int(args[0])

    try:
        from mininet.net import Mininet
        from mininet.nodelib import LinuxBridge
        from mininet.topo import SingleSwitchTopo
    except ImportError as e:
        missing(f"mininet cannot be imported by {sys.executable}: {e}")
    if not shutil.which("brctl"):
        missing("mininet's LinuxBridge needs brctl (package bridge-utils)")

    # Mininet puts its bridge and the bridge's ports into the namespace it was
    # started in, so that must not be the machine's own.
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        os.execvp(
            "unshare",
            [
                "unshare",
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--mount-proc",
                sys.executable,
                os.path.abspath(__file__),
                *sys.argv[1:],
            ],
        )

    # Each host is a shell with pipes and a pty.  Mininet would raise this limit
    # itself, and a dozen sysctls of the whole machine with it: `inited` tells it
    # that it has done so.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Mininet.inited = True

    start = time.monotonic()
    net = Mininet(topo=SingleSwitchTopo(hosts), switch=LinuxBridge, controller=None)
    net.start()
    result: dict[str, Any] = {"hosts": hosts, "build_ms": round((time.monotonic() - start) * 1e3, 2)}

    if "--verify" in sys.argv:
        first, last = net.hosts[0], net.hosts[-1]
        lost = net.ping([first, last]) if hosts > 1 else 0
        result["verify"] = "ok" if lost == 0 else f"{lost} % lost"
    print(json.dumps(result, separators=(",", ":")), flush=True)
    net.stop()
    return 0 if result.get("verify", "ok") == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
