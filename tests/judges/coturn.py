"""A real coturn inside a lab: STUN on two addresses and two ports each (RFC 5780), and TURN."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import trio
from attrs import frozen

from patchbay.lab.lab import Lab
from patchbay.lab.nodes import Device
from tests.patience import DEADLINE, await_until
from tests.processes import run

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
            await until_answered(device, coturn.address, coturn.alternate)
            await _until_listening(device, coturn.address)
        except trio.TooSlowError:
            raise AssertionError((folder / "coturn.log").read_text()) from None
        yield coturn


def _command(coturn: Coturn, folder: Path) -> list[str]:
    """All by the command line: neither the machine's configuration nor its database is touched."""
    return [
        *("turnserver", "-n", "-L", coturn.address, "-L", coturn.alternate, "--no-tls", "--no-dtls"),
        *("--lt-cred-mech", "--user", f"{USER}:{PASSWORD}", "--realm", "judges"),
        # Its other listeners come in pairs for RFC 5780; these, for TURN, do not.
        *("--aux-server", f"{coturn.address}:{HTTPS_PORT}"),
        *("--log-file", f"{folder}/coturn.log", "--simple-log", "--no-stdout-log"),
        *("--pidfile", f"{folder}/coturn.pid", "--userdb", f"{folder}/coturn.db"),
        *options_of_this_version(),
    ]


def options_of_this_version() -> list[str]:
    # Even for its help it opens a log, of an ordinary user in /var/tmp.
    known = run(["turnserver", "--log-file", "stdout", "--help"], text=True)
    words = (known.stdout + known.stderr).split()
    return [option for option in _WHERE_KNOWN if option in words]


async def until_answered(device: Device, *hosts: str) -> None:
    """Return once there is STUN on both ports of each address of the device. Raises `trio.TooSlowError`."""
    with trio.fail_after(DEADLINE), device.enter():
        for host, port in itertools.product(hosts, (PORT, OTHER_PORT)):
            await _answered(host, port)


async def _until_listening(device: Device, host: str) -> None:
    async def accepts() -> bool:
        with contextlib.suppress(OSError):
            await (await trio.open_tcp_stream(host, HTTPS_PORT)).aclose()
            return True
        return False

    with device.enter():
        await await_until(accepts)


async def _answered(host: str, port: int) -> None:
    """Return once a binding request (RFC 8489) to that address has had its answer."""
    request = bytes.fromhex("0001 0000 2112a442") + os.urandom(12)
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("0.0.0.0", 0))
        while True:
            await sock.sendto(request, (host, port))
            with trio.move_on_after(0.05):  # then the request is repeated
                assert (await sock.recvfrom(2000))[0][8:20] == request[8:]
                return
