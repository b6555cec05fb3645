"""What labs say where the machine, an account or a limit does not give what they need."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import sys
from pathlib import Path

import pytest

import patchbay
from patchbay.sandbox.accounts import own_range
from tests.kernel.labs import HOME, home_lab
from tests.ordinary_user import OrdinaryUser
from tests.processes import run

pytestmark = pytest.mark.kernel

# The number of processes is limited for ordinary users alone (setrlimit(2), RLIMIT_NPROC).
NO_PROCESSES = f"""
import os, resource, trio, patchbay

async def main():
    async with patchbay.open_lab({HOME!r}) as lab:
        laptop, server = lab.device("laptop"), lab.device("server")
        await laptop.run(["true"])
        parent = lab._core.session.sandbox.pid
        (agent,) = open(f"/proc/{{parent}}/task/{{parent}}/children").read().split()
        resource.prlimit(int(agent), resource.RLIMIT_NPROC, (1, 1))
        calls = [
            lambda: laptop.run(["true"]),
            lambda: laptop.call(os.getpid),
            lambda: laptop.getaddrinfo("localhost", 80),
            lambda: server.run(["true"]),
        ]
        for call in calls:
            try:
                await call()
            except Exception as error:
                print(type(error).__name__, str(error).replace(chr(10), " | "))
        laptop.socket().close()
        resource.prlimit(parent, resource.RLIMIT_NPROC, (1, 1))
        try:
            laptop.popen(["true"])
        except Exception as error:
            print(type(error).__name__, error)
        try:
            await lab.add_router("late")
        except patchbay.LabBrokenError as error:  # to undo it needs a process too
            print(type(error).__name__, str(error).replace(chr(10), " | "))
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    try:
        async with patchbay.open_lab():
            pass
    except patchbay.HostError as error:
        print(type(error).__name__, str(error).replace(chr(10), " | "))

trio.run(main)
"""


def test_under_a_limit_of_processes_every_call_names_the_limit(ordinary_user: OrdinaryUser) -> None:
    done = ordinary_user.run([ordinary_user.python, "-c", NO_PROCESSES])
    *calls, changed, opened = done.stdout.splitlines()
    assert len(calls) == 5
    for line in [*calls, changed]:
        assert "a limit of processes is reached: `ulimit -u`" in line, line
    nodes = ["laptop", "laptop", "laptop", "server", "laptop"]
    assert [line.split(":")[0] for line in calls] == [
        f"BlockingIOError [Errno 11] in '{node}'" for node in nodes
    ]
    assert "a limit of processes is reached" in opened and "repair  ulimit -u" in opened


async def test_with_few_descriptors_a_socket_raises_the_limits_own_error() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        laptop.socket().close()
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            with pytest.raises(OSError, match="ulimit -n") as failure:
                laptop.socket()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert failure.value.errno == errno.EMFILE
        laptop.socket().close()


def test_under_asyncio_a_lab_says_that_it_needs_trio() -> None:
    async def main() -> None:
        async with patchbay.open_lab():
            pass

    with pytest.raises(RuntimeError, match=r"labs need trio: .*trio\.run\(main\).*pytest-trio"):
        asyncio.run(main())


# -- accounts


def test_an_account_finds_its_range_of_ids_between_comments_and_blank_lines() -> None:
    lines = ["# ranges", "", "other:100000:65536", "me:wrong", "1000:200000:10", "me:300000:20"]
    assert own_range(lines, {"me"}) == (300000, 20)
    assert own_range(lines, {"1000"}) == (200000, 10)
    assert own_range(lines, {"nobody"}) is None


SAY_IDS = f"""
import trio, patchbay

async def main():
    async with patchbay.open_lab({HOME!r}) as lab:
        print(lab._core.session.sandbox.ids)
        await lab.device("laptop").run(["true"])

trio.run(main)
"""


def test_the_ids_are_those_of_the_account_and_not_of_the_environments_user(
    ordinary_user: OrdinaryUser,
) -> None:
    argv = [ordinary_user.python, "-c", SAY_IDS]
    own = ordinary_user.run(argv).stdout
    assert ordinary_user.run(argv, env={"USER": "root", "LOGNAME": "root"}).stdout == own


def test_an_id_without_an_account_has_labs_and_a_doctor(ordinary_user: OrdinaryUser) -> None:
    if not ordinary_user.become:
        pytest.skip("only root can become an id without an account")
    # The fixture's words up to setpriv lead to where patchbay can be read.
    into = ordinary_user.become[: ordinary_user.become.index("setpriv")]
    nobody = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--"]
    env = {
        **ordinary_user._login({}),
        "HOME": "/nonexistent",
        "TMPDIR": "/tmp",
    }
    del env["USER"], env["LOGNAME"]
    done = run([*into, *nobody, ordinary_user.python, "-c", SAY_IDS], env=env, cwd="/", text=True)
    assert done.stdout == "1\n", done.stderr
    done = run([*into, *nobody, *ordinary_user.patchbay_argv, "doctor"], env=env, cwd="/", text=True)
    assert "Traceback" not in done.stderr and "one user id in a lab" in done.stdout


async def test_a_user_that_the_lab_has_no_id_for_is_refused_with_the_way_out(
    ordinary_user: OrdinaryUser,
) -> None:
    script = SAY_IDS.replace('run(["true"])', 'run(["true"], user=70000)')
    done = ordinary_user.run([ordinary_user.python, "-c", script], check=False)
    assert "cannot run as 70000: user id 70000 is not in the lab" in done.stderr
    assert "patchbay doctor" in done.stderr


# -- the machine's name services

ASKS_DNS_FIRST = "passwd: files\nhosts: mymachines dns [!SUCCESS=return] files\n"

LOOK_UP = f"""
import subprocess, trio, patchbay

async def main():
    async with patchbay.open_lab({HOME!r}) as lab:
        laptop = lab.device("laptop")
        lab.dns_entry("db.lab", "192.0.2.1")
        lab.set_nameserver(lab.device("server").ip)
        done = await laptop.run(["getent", "hosts", "db.lab"], capture_stdout=True)
        print(done.stdout.decode())
        with laptop.enter():
            print(await trio.socket.getaddrinfo("db.lab", 80))

trio.run(main)
"""


def test_a_name_of_the_lab_wins_whatever_the_machines_nsswitch_says(tmp_path: Path) -> None:
    nsswitch = tmp_path / "nsswitch.conf"
    nsswitch.write_text(ASKS_DNS_FIRST)
    bind = 'mount --bind "$1" /etc/nsswitch.conf && shift && exec "$@"'
    prefix = ["unshare", "--mount", "--propagation=private", "sh", "-c", bind, "sh", str(nsswitch)]
    if os.geteuid() != 0:
        prefix[1:1] = ["--user", "--map-root-user"]
    done = run([*prefix, sys.executable, "-c", LOOK_UP], text=True)
    assert done.stdout.split()[:2] == ["192.0.2.1", "db.lab"], done.stderr
    assert "('192.0.2.1', 80)" in done.stdout


# -- programs below /run, as on NixOS

RUN_PROGRAM = f"""
import trio, patchbay

async def main():
    async with patchbay.open_lab({HOME!r}) as lab:
        done = await lab.device("laptop").run(["of-the-test"], capture_stdout=True)
        print(done.stdout.decode())

trio.run(main)
"""


def test_programs_in_folders_of_path_below_run_are_found(tmp_path: Path) -> None:
    program = tmp_path / "of-the-test"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    mounted = (
        'mount -t tmpfs none /run && mkdir -p /run/system/sw && mount --bind "$1" /run/system/sw && shift'
    )
    prefix = ["unshare", "--mount", "--propagation=private", "sh", "-c", f'{mounted} && exec "$@"', "sh"]
    if os.geteuid() != 0:
        prefix[1:1] = ["--user", "--map-root-user"]
    env = os.environ | {"PATH": f"{os.environ['PATH']}:/run/system/sw"}
    done = run([*prefix, str(tmp_path), sys.executable, "-c", RUN_PROGRAM], text=True, env=env)
    assert done.stdout.strip() == "found", done.stderr
