"""A real coturn inside a lab: STUN on two addresses and two ports each (RFC 5780), and TURN."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import trio
from attrs import frozen

from patchbay.lab.lab import Lab
from patchbay.lab.nodes import Device

USER, PASSWORD = "judge", "fair"
PORT, OTHER_PORT = 3478, 3479  # coturn's defaults
HTTPS_PORT = 443

# What newer versions leave off unless it is asked for, and older ones do not know: STUN on two
# addresses since 4.7, answers to clients of RFC 3489 (`stun`, pystun3) since 4.7 by the one name, later by
# the other. 4.6 has a command line on a port unless it is told not to.
_WHERE_KNOWN = ("--rfc5780", "--stun-backward-compatibility", "--rfc3489-compatibility", "--no-cli")


@frozen
class Coturn:
    """`address` is the one to give to a client: coturn names `alternate` as its other one (RFC 5780
    OTHER-ADDRESS, RFC 3489 CHANGED-ADDRESS) whichever of the two is asked. natdiscovery counts on it.
    """

    address: str
    alternate: str


@contextlib.asynccontextmanager
async def open_coturn(lab: Lab, folder: Path) -> AsyncIterator[Coturn]:
    """A coturn on a public device of its own, that has answered on every address and port."""
    router = await lab.add_router("dc")
    device = await lab.add_device("coturn", uplink=router)
    assert router.downstream_cidr is not None
    # The last address of the LAN is the last that the lab would give to another device.
    coturn = Coturn(str(device.ip), str(router.downstream_cidr[-2]))
    await device.run(["ip", "addr", "add", f"{coturn.alternate}/32", "dev", "eth0"])
    argv = _command(coturn, folder)
    async with device.open_process(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        try:
            await _wait_until_ready(device, coturn)
        except trio.TooSlowError:
            raise AssertionError((folder / "coturn.log").read_text()) from None
        yield coturn


def _command(coturn: Coturn, folder: Path) -> list[str]:
    """All by the command line: neither the machine's configuration nor its database is touched."""
    known = subprocess.run(["turnserver", "--help"], capture_output=True, text=True, check=False)
    words = (known.stdout + known.stderr).split()
    return [
        *("turnserver", "-n", "-L", coturn.address, "-L", coturn.alternate, "--no-tls", "--no-dtls"),
        *("--lt-cred-mech", "--user", f"{USER}:{PASSWORD}", "--realm", "judges"),
        # Its other listeners come in pairs for RFC 5780; these, for TURN, do not.
        *("--aux-server", f"{coturn.address}:{HTTPS_PORT}"),
        *("--log-file", f"{folder}/coturn.log", "--simple-log", "--no-stdout-log"),
        *("--pidfile", f"{folder}/coturn.pid", "--userdb", f"{folder}/coturn.db"),
        *(option for option in _WHERE_KNOWN if option in words),
    ]


async def _wait_until_ready(device: Device, coturn: Coturn) -> None:
    with trio.fail_after(15), device.enter():
        for host in (coturn.address, coturn.alternate):
            for port in (PORT, OTHER_PORT):
                await _answered(host, port)
        while True:
            with contextlib.suppress(OSError):
                await (await trio.open_tcp_stream(coturn.address, HTTPS_PORT)).aclose()
                return
            await trio.sleep(0.05)


async def _answered(host: str, port: int) -> None:
    """Return once a binding request (RFC 8489) to that address has had its answer."""
    request = bytes.fromhex("0001 0000 2112a442") + os.urandom(12)
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("0.0.0.0", 0))
        while True:
            await sock.sendto(request, (host, port))
            with trio.move_on_after(0.05):
                assert (await sock.recvfrom(2000))[0][8:20] == request[8:]
                return
