"""`patchbay natcheck`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from functools import partial

import pytest
import trio
from typer.testing import CliRunner

import patchbay
from patchbay.lab.attach import answer_clients, listen
from patchbay.testing import serve_stun
from patchbay_cli.main import app
from tests.processes import run

NATCHECK = [sys.executable, "-m", "patchbay_cli.main", "natcheck"]
WIDE = {"COLUMNS": "200", "TERM": "dumb"}


async def natcheck(*words: str) -> subprocess.CompletedProcess[str]:
    """On the host."""
    ask = partial(run, [*NATCHECK, *words], env={**os.environ, **WIDE}, text=True)
    return await trio.to_thread.run_sync(ask)


def free_ports() -> tuple[int, int]:
    """Two ports of the host that nobody has bound."""
    with socket.socket() as one, socket.socket() as two:
        for sock in (one, two):
            sock.bind(("", 0))
        return one.getsockname()[1], two.getsockname()[1]


@pytest.mark.parametrize(
    "server", ["x:0", "x:99999", "x:port", ":3478", "x:", "[::1]:x", "", "a..b", "x" * 64]
)
def test_a_server_is_a_host_and_a_port(server: str) -> None:
    done = CliRunner().invoke(app, ["natcheck", "--server", server])
    assert done.exit_code == 2
    assert done.stderr == (f"--server {server}: expected HOST or HOST:PORT, with a port from 1 to 65535\n")


async def test_a_lab_without_a_node_is_no_place() -> None:
    done = await natcheck("--inspect", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "give --node too" in done.stderr


async def test_where_no_server_answers_the_error_names_the_way_out() -> None:
    done = await natcheck("--server", "127.0.0.1:9", "--server", "no.such.name.invalid", "--protocol", "tcp")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "no STUN server answered by TCP"
    assert lines[1].startswith("  no address for no.such.name.invalid: ")
    assert lines[2] == "  does it run, listen to TCP, and can it be reached from here?"


async def test_the_host_is_checked_by_default() -> None:
    ports = free_ports()
    addresses = [(None, "127.0.0.1"), (None, "127.0.0.2")]
    async with serve_stun(*addresses, ports=ports):
        done = await natcheck("--server", f"127.0.0.1:{ports[0]}", "--protocol", "both")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert rows["NAT"].split() == ["NAT", *["none,", "127.0.0.1", "is", "seen", "as", "it", "is"] * 2]
    assert "endpoint-independent" in rows["filtering"]
    assert "not known" in rows["filtering"]
    assert "TCP filtering: by TCP only a server of the same program" in done.stdout


@pytest.mark.kernel
async def test_a_node_of_a_lab_is_checked_inside_and_from_outside() -> None:
    lab_id = f"natcheck{os.getpid()}"
    async with patchbay.open_lab() as lab, trio.open_nursery() as nursery:
        async with lab.batch():
            dc = await lab.add_router("dc", preset="datacenter")
            first = await lab.add_device("first", uplink=dc)
            second = await lab.add_device("second", uplink=dc)
            home = await lab.add_router("home", preset="home")
            laptop = await lab.add_device("laptop", uplink=home)
        server = str(first.ip)
        async with serve_stun(first, second):
            inside = await laptop.run([*NATCHECK, "--server", server], capture_stdout=True, env=WIDE)
            words = ["--node", "laptop", "--inspect", lab_id, "--server", server, "--json"]
            with listen(lab_id) as listener:
                nursery.start_soon(answer_clients, lab, listener)
                outside = await natcheck(*words)
                nursery.cancel_scope.cancel()
    rows = {line.split("  ")[0]: " ".join(line.split()[1:]) for line in inside.stdout.decode().splitlines()}
    assert rows["NAT"] == f"{laptop.ip} is seen as {home.ip}"
    assert rows["mapping"] == "endpoint-independent"
    assert rows["filtering"] == "address-and-port-dependent"
    assert rows["hairpin"] == "no"
    assert rows["ports"].startswith("preserve (")
    assert rows["server"] == f"{server} port 3478"
    (report,) = json.loads(outside.stdout)
    assert (report["mapped"], report["port_preserved"]) == (str(home.ip), True)
