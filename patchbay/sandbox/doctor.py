"""The abilities of this machine, tried rather than guessed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import trio
from attrs import frozen

from patchbay.errors import HostError
from patchbay.sandbox import host
from patchbay.sandbox.netem import TRIAL
from patchbay.sandbox.sandbox import Sandbox

__all__ = ["CheckResult", "examine"]


@frozen
class CheckResult:
    """One thing looked at. `fatal`: without it no lab can be opened; `repair`: the line that helps."""

    what: str
    found: str
    good: bool = True
    fatal: bool = False
    repair: str = ""


async def examine() -> list[CheckResult]:
    """Look at everything that labs need or can use. Return a result for each."""
    return [
        *_machine(),
        *[await _tool(name) for name in (*host.TOOLS, "nsenter", "sysctl")],
        await _miniupnpd(),
        *await _sandbox(),
    ]


def _machine() -> Iterator[CheckResult]:
    yield CheckResult("kernel", f"{platform.system()} {platform.release()}", good=sys.platform == "linux")
    yield CheckResult("python", f"{platform.python_version()} ({sys.executable})")
    yield CheckResult("user", "root" if os.geteuid() == 0 else f"uid {os.geteuid()} (ordinary)")


async def _tool(name: str) -> CheckResult:
    path = host.which(name)
    fatal = name in host.TOOLS
    package = host.TOOLS.get(name, {"nsenter": "util-linux", "sysctl": "procps"}.get(name, name))
    if path is None:
        # nsenter and sysctl are for repeating commands manually.
        return CheckResult(name, "not on PATH", False, fatal, f"sudo apt-get install {package}")
    flag = "--version" if name in ("nft", "nsenter", "sysctl") else "-V"
    done = await trio.run_process([path, flag], capture_stdout=True, stderr=subprocess.DEVNULL, check=False)
    return CheckResult(name, f"{done.stdout.decode(errors='replace').strip()} ({path})")


async def _miniupnpd() -> CheckResult:
    """Debian has it for iptables too; that one knows nothing of nftables' options."""
    path, repair = host.which("miniupnpd"), "sudo apt-get install miniupnpd-nftables"
    if path is None:
        return CheckResult("miniupnpd", "not on PATH; needed for port_mapping=True", False, repair=repair)
    done = await trio.run_process([path, "--version"], capture_stdout=True, capture_stderr=True, check=False)
    output = " ".join((done.stdout + done.stderr).decode(errors="replace").split())
    if "nftables" not in output:
        return CheckResult(
            "miniupnpd", f"not for nftables, as port_mapping=True needs it: {output}", False, repair=repair
        )
    return CheckResult("miniupnpd", f"{output} ({path})")


async def _sandbox() -> list[CheckResult]:
    """Open a bare lab and try what the kernel has."""
    async with Sandbox() as sandbox:
        try:
            await sandbox.up()
        except HostError as error:
            return [CheckResult("namespaces", lack.what, False, True, lack.repair) for lack in error.lacks]
        trials = [await _trial(sandbox, *trial) for trial in _TRIALS]
        return [
            CheckResult("namespaces", "user, network, mount and pid namespaces can be made"),
            _ids(sandbox),
            *trials,
            _emulator(next(trial for trial in trials if trial.what == "netem")),
            _tun(),
        ]


def _ids(sandbox: Sandbox) -> CheckResult:
    if sandbox.ids > 1:
        return CheckResult("ids", f"{sandbox.ids} user ids in a lab")
    return CheckResult(
        "ids",
        "one user id in a lab: programs that change their user, or refuse to be root, fail in it",
        good=False,
        repair="sudo apt-get install uidmap, and a line for you in /etc/subuid and /etc/subgid",
    )


_NFT = "add table inet t { chain c { type nat hook postrouting priority srcnat; masquerade; }; }\n"
_TRIALS = (
    # what, tool, arguments, input, fatal, and what would repair it
    (
        "veth",
        ["ip", "link", "add", "name", "a", "type", "veth", "peer", "name", "b"],
        "",
        True,
        "a kernel with CONFIG_VETH",
    ),
    ("bridge", ["ip", "link", "add", "name", "c", "type", "bridge"], "", True, "a kernel with CONFIG_BRIDGE"),
    (
        "nftables NAT",
        ["nft", "-f", "-"],
        _NFT,
        True,
        "a kernel with CONFIG_NF_TABLES_INET and CONFIG_NFT_NAT",
    ),
    (
        "netem",
        TRIAL,
        "",
        False,
        "a kernel with CONFIG_NET_SCH_NETEM, or its module loaded",
    ),
    # Where these are refused, processes of a node see the lab's processes, or the machine's interfaces.
    (
        "own /proc",
        ["unshare", "--pid", "--mount", "--fork", "mount", "-t", "proc", "proc", "/proc"],
        "",
        False,
        "start the container with --security-opt systempaths=unconfined",
    ),
    (
        "own /sys",
        ["mount", "-t", "sysfs", "sysfs", "/run/patchbay/proc"],
        "",
        False,
        "start the container with --security-opt systempaths=unconfined",
    ),
)


async def _trial(
    sandbox: Sandbox, what: str, argv: list[str], text: str, fatal: bool, repair: str
) -> CheckResult:
    answer = await sandbox.agent.request({"lanes": [["", [["exec", None, argv, text]]]]})
    result = answer["results"][0][0]
    if result["status"] == 0:
        return CheckResult(what, "works")
    output = " ".join(result["err"].split()) or f"exit status {result['status']}"
    return CheckResult(what, f"does not work: {output}", False, fatal, repair)


def _emulator(netem: CheckResult) -> CheckResult:
    """Tell which emulator acts on links by default."""
    if netem.good:
        return CheckResult("emulator", "netem, since the kernel has it")
    if os.path.exists("/proc/net/packet"):
        return CheckResult("emulator", "userspace, a relay process for each link with a condition: no netem")
    lack = "none: links can have no conditions, as the kernel has neither netem nor packet sockets"
    return CheckResult("emulator", lack, False, False, "a kernel with CONFIG_NET_SCH_NETEM or CONFIG_PACKET")


def _tun() -> CheckResult:
    if Path("/dev/net/tun").exists():
        return CheckResult("tun", "/dev/net/tun")
    return CheckResult("tun", "no /dev/net/tun: VPNs cannot run in a lab", False, False, "sudo modprobe tun")
