"""A node is a machine of its own: its processes, names, folders and limits are not another's."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import patchbay
from tests.kernel.inside import processes_of
from tests.kernel.labs import home_lab
from tests.patience import await_until

pytestmark = pytest.mark.kernel


async def said(node: patchbay.Node, script: str, **options: object) -> str:
    done = await node.run(["sh", "-c", script], capture_stdout=True, **options)  # type: ignore[arg-type]
    return done.stdout.decode().strip()


@pytest.mark.ordinary
async def test_a_node_has_a_host_name_that_resolves_to_its_addresses() -> None:
    async with home_lab() as lab:
        for node in (lab.device("laptop"), lab.router("home"), lab.ix):
            assert await said(node, "hostname") == node.name
            assert await node.call(socket.gethostname) == node.name
            found = {line.split()[0] for line in (await said(node, "getent ahosts $(hostname)")).splitlines()}
            assert found == {str(node.ip), str(node.ip6)}
        assert socket.gethostname() not in ("laptop", "home")
        lab.dns_entry("laptop", "192.0.2.1")
        assert await said(lab.device("laptop"), "getent hosts laptop") == "192.0.2.1       laptop laptop."


@pytest.mark.ordinary
async def test_processes_of_a_node_are_seen_and_ended_by_it_alone() -> None:
    async with home_lab() as lab:
        laptop, server = lab.device("laptop"), lab.device("server")
        async with laptop.open_process(["sleep", "1234"]) as process:
            await said(server, "pkill sleep; kill -KILL -1; true")
            assert process.returncode is None
            assert await said(laptop, f"cat /proc/{process.pid}/cmdline | tr '\\0' ' '") == "sleep 1234"
            assert await said(server, "set -- /proc/[0-9]*; echo $#") == "2"  # init, sh
            await said(laptop, f"kill {process.pid}")
            assert await process.wait() == -signal.SIGTERM


async def test_an_orphan_of_a_node_disappears_when_it_ends() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        await said(laptop, "(sleep 0 &)")

        async def no_zombie() -> bool:
            return "Z" not in await said(laptop, "cat /proc/[0-9]*/stat | cut -d' ' -f3")

        await await_until(no_zombie)


async def test_a_node_that_is_used_has_one_small_process() -> None:
    async with home_lab() as lab:
        await said(lab.device("laptop"), "true")
        (init,) = processes_of(lab, "sleep")
        text = Path(f"/proc/{init}/smaps_rollup").read_text()
        private = sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))
        assert private < 300  # KiB


@pytest.mark.ordinary
async def test_run_is_a_folder_of_the_nodes_own() -> None:
    async with home_lab() as lab:
        laptop, server = lab.device("laptop"), lab.device("server")
        await said(laptop, "ip netns add inner; ip netns exec inner true; echo x >/run/file.pid")
        assert await said(laptop, "ip netns list") == "inner"
        assert await said(server, "ip netns list; ls /run/file.pid 2>&1 | grep -c 'No such'") == "1"
        assert await said(laptop, "ls -d /run/user /run/lock /var/run/netns") != ""
        # The lab's own namespaces are out of reach.
        await said(laptop, "rm -rf /run/* || true")
        assert await lab.add_device("late", uplink=lab.router("home"))
        assert await said(server, "hostname") == "server"


async def test_shared_memory_and_semaphores_are_the_nodes_own() -> None:
    async with home_lab() as lab:
        laptop, server = lab.device("laptop"), lab.device("server")
        await said(laptop, "ipcmk -M 4096")
        assert "0x" in await said(laptop, "ipcs -m")
        assert "0x" not in await said(server, "ipcs -m")


@pytest.fixture
def daemon_of_the_machine() -> Iterator[str]:
    """A socket in the machine's /run at which somebody answers."""
    path = f"/run/patchbay-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        yield path
        os.unlink(path)


async def test_no_daemon_of_the_machine_is_reached_by_a_path_in_run(daemon_of_the_machine: str) -> None:
    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    await trio.run_process([sys.executable, "-c", connect, daemon_of_the_machine])
    async with home_lab() as lab:
        with pytest.raises(subprocess.CalledProcessError, match="No such file"):
            await lab.device("laptop").run(
                [sys.executable, "-c", connect, daemon_of_the_machine], capture_stderr=True
            )


async def test_labs_open_while_the_machines_run_changes() -> None:
    """Daemons come and go there; what has gone meanwhile is not missed."""
    ends = threading.Event()

    def change() -> None:
        number = 0
        while not ends.is_set():
            path = f"/run/patchbay-changes-{os.getpid()}-{number % 8}"
            os.mkdir(path)
            os.rmdir(path)
            number += 1

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(20):
            async with home_lab() as lab:
                await said(lab.device("laptop"), "true")
    finally:
        ends.set()
        await trio.to_thread.run_sync(changer.join)


# -- defaults


async def test_ping_works_without_privileges_and_for_every_user() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        with laptop.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
            assert sock.proto == socket.IPPROTO_ICMP
        with laptop.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6) as sock:
            assert sock.proto == socket.IPPROTO_ICMPV6
        opened = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)"
        await laptop.run(["/usr/bin/python3", "-c", opened], user="nobody")


def answered_probes(target: str, family: int) -> int:
    """Return to how many of 60 datagrams, each to a closed port, an ICMP error comes back at once."""
    answered = 0
    for port in range(40000, 40060):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(1)
            sock.connect((target, port))
            sock.send(b"x")
            try:
                sock.recv(1)
            except ConnectionRefusedError:
                answered += 1
            except TimeoutError:
                return answered
    return answered


async def test_no_icmp_error_is_rate_limited() -> None:
    async with patchbay.open_lab() as lab:
        router = await lab.add_router("router", preset="datacenter")
        laptop, phone = [await lab.add_device(name, uplink=router) for name in ("laptop", "phone")]
        assert await laptop.call(answered_probes, str(phone.ip), socket.AF_INET) == 60
        assert await laptop.call(answered_probes, str(phone.ip6), socket.AF_INET6) == 60


async def test_tcp_has_the_stated_defaults_whatever_the_machines_are() -> None:
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
    async with home_lab() as lab:
        settings = "cd /proc/sys/net/ipv4; cat tcp_rmem tcp_wmem tcp_congestion_control"
        assert (await said(lab.device("laptop"), settings)).split() == [
            *("4096", "131072", "6291456"),
            *("4096", "16384", "4194304"),
            "cubic" if "cubic" in allowed else "reno",
        ]


async def test_programs_have_the_callers_limit_of_descriptors_and_ignored_signals() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (777, hard))
            assert await said(laptop, "ulimit -n") == "777"
            child = laptop.popen(["sh", "-c", "ulimit -n"], stdout=subprocess.PIPE)
            assert child.communicate()[0] == b"777\n"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        ignored = "grep SigIgn /proc/self/status"
        handler = signal.getsignal(signal.SIGHUP)
        try:
            for action, bit in ((signal.SIG_DFL, 0), (signal.SIG_IGN, 1)):
                signal.signal(signal.SIGHUP, action)
                assert int((await said(laptop, ignored)).split()[1], 16) & 1 == bit  # bit 0 is signal 1
        finally:
            signal.signal(signal.SIGHUP, handler)


async def test_a_program_may_lead_a_process_group() -> None:
    async with home_lab() as lab:
        await lab.device("laptop").run([sys.executable, "-c", "import os; os.setpgrp()"])


# -- users


@pytest.mark.parametrize("user", ["nobody", "www-data", "games", "_apt", 33, "33", 4242])
async def test_a_program_of_another_user_has_the_ids_that_its_account_has(user: str | int) -> None:
    # id(1) knows the account by its name or number.
    of_account = f"echo $(id -u {user}) $(id -g {user}) $(id -G {user})"
    known = await trio.run_process(["sh", "-c", of_account], capture_stdout=True)
    expected = "4242 0 0" if user == 4242 else known.stdout.decode().strip()
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        ids = "echo $(id -u) $(id -g) $(id -G)"
        assert await said(laptop, ids, user=user) == expected
        child = laptop.popen(["sh", "-c", ids], user=user, stdout=subprocess.PIPE, text=True)
        assert child.communicate()[0].strip() == expected


async def test_an_unknown_user_is_named_with_one_that_is_close() -> None:
    async with home_lab() as lab:
        with pytest.raises(KeyError, match="this machine has no user 'nobdy'; did you mean 'nobody'"):
            await lab.device("laptop").run(["true"], user="nobdy")


# -- private folders


async def test_a_private_folder_is_empty_and_the_nodes_own_with_the_owner_and_mode_of_the_machines(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "var"
    folder.mkdir(mode=0o710)
    (folder / "of the machine").touch()
    async with patchbay.open_lab() as lab:
        router = await lab.add_router("router")
        one = await lab.add_device("one", uplink=router, private=[str(folder)])
        two = await lab.add_device("two", uplink=router, private=[str(folder), "/tmp"])
        three = await lab.add_device("three", uplink=router)
        await said(one, f"touch '{folder}/mine'")
        assert await said(one, f"ls '{folder}'; stat -c '%a %u' '{folder}'") == f"mine\n710 {os.getuid()}"
        assert await said(two, f"ls '{folder}'; stat -c %a /tmp") == "1777"
        assert await said(three, f"ls '{folder}'") == "of the machine"
    assert [file.name for file in folder.iterdir()] == ["of the machine"]


async def test_a_private_folder_that_is_not_there_is_named_when_the_node_is_used() -> None:
    async with patchbay.open_lab() as lab:
        device = await lab.add_device("d", uplink=await lab.add_router("r"), private=["/no/such/folder"])
        with pytest.raises(FileNotFoundError, match=r"in 'd': .*private folder.*/no/such/folder"):
            await device.run(["true"])
        device.socket().close()  # which takes a network alone
        await lab.router("r").run(["true"])


# -- labs in nodes

LAB_IN_A_NODE = """
import trio, patchbay

async def main():
    async with patchbay.open_lab() as lab:
        home = await lab.add_router("home", preset="home")
        laptop = await lab.add_device("inner", uplink=home)
        script = f"hostname; ping -c1 -w60 {lab.ix.ip} >/dev/null && ip -br link show eth0 | cut -c1-4"
        print((await laptop.run(["sh", "-c", script], capture_stdout=True)).stdout.decode())

trio.run(main)
"""


@pytest.mark.ordinary
async def test_a_lab_opens_in_a_node_of_a_lab() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        done = await laptop.run([sys.executable, "-c", LAB_IN_A_NODE], capture_stdout=True)
        assert done.stdout.split() == [b"inner", b"eth0"]
        assert await said(laptop, "hostname") == "laptop"
