"""Two daemons of a kind run in two nodes of one lab with their usual configuration, and do not meet."""

from __future__ import annotations

import os
from functools import partial

import pytest
from attrs import frozen

import patchbay
from tests.patience import await_until

pytestmark = pytest.mark.kernel


@frozen
class Daemon:
    """How a daemon is prepared and started, asked whether it serves, and told to stop, each in a node."""

    start: str
    serves: str
    stop: str
    prepare: str = "true"
    user: str | None = None
    private: tuple[str, ...] = ()


POSTGRES = "PATH=$(echo /usr/lib/postgresql/*/bin):$PATH"

DAEMONS = {
    "nginx": Daemon(
        "exec nginx -g 'daemon off;'", "curl -sf http://127.0.0.1/ -o /dev/null", "nginx -s stop"
    ),
    "sshd": Daemon(
        "exec /usr/sbin/sshd -D -e",
        "bash -c 'exec 3<>/dev/tcp/127.0.0.1/22 && head -c7 <&3' | grep -q SSH-2.0",
        "kill $(cat /run/sshd.pid)",
        prepare="mkdir -p /run/sshd",
    ),
    "chronyd": Daemon(
        "exec chronyd -d -x",
        "chronyc -n tracking | grep -q 'Reference ID'",
        "kill $(cat /run/chrony/chronyd.pid)",
    ),
    "redis": Daemon(
        "exec redis-server /etc/redis/redis.conf --daemonize no",
        "redis-cli ping | grep -q PONG && test -s /run/redis/redis-server.pid",
        "redis-cli shutdown nosave",
        prepare="install -d -o redis -g redis /run/redis",
        user="redis",
    ),
    "postgres": Daemon(
        f"{POSTGRES}; exec postgres -D /var/lib/postgresql/data",
        f"{POSTGRES}; psql -qAtc 'select 1' | grep -qx 1",
        f"{POSTGRES}; pg_ctl -D /var/lib/postgresql/data -m fast stop",
        prepare=f"{POSTGRES}; initdb -D /var/lib/postgresql/data -A trust >/dev/null",
        user="postgres",
        private=("/var/lib/postgresql",),
    ),
    "wireguard-go": Daemon(
        "WG_PROCESS_FOREGROUND=1 exec wireguard-go wg0",
        "wg set wg0 listen-port 51820 && wg show wg0 listen-port | grep -qx 51820",
        "pkill -x wireguard-go",
    ),
}


@pytest.mark.parametrize("name", DAEMONS)
async def test_two_daemons_of_a_kind_do_not_meet(name: str) -> None:
    daemon = DAEMONS[name]
    of_the_machine = set(os.listdir("/run"))
    async with patchbay.open_lab() as lab:
        router = await lab.add_router("router")
        one, two = [await lab.add_device(n, uplink=router, private=daemon.private) for n in ("one", "two")]
        as_root = {"redis"}  # whose folder in /run systemd makes, as root
        for node in (one, two):
            user = None if name in as_root else daemon.user
            await node.run(["sh", "-ec", daemon.prepare], user=user, cwd="/")
        start = ["sh", "-ec", daemon.start]
        async with (
            one.open_process(start, user=daemon.user, cwd="/") as first,
            two.open_process(start, user=daemon.user, cwd="/") as second,
        ):
            for node in (one, two):
                await await_until(partial(serves, node, daemon), f"{name} in '{node.name}'")
            await one.run(["sh", "-ec", daemon.stop], user=daemon.user, cwd="/")
            await first.wait()
            assert not await serves(one, daemon)
            assert second.returncode is None
            assert await serves(two, daemon)
    assert set(os.listdir("/run")) == of_the_machine


async def serves(node: patchbay.Node, daemon: Daemon) -> bool:
    argv = ["sh", "-ec", daemon.serves]
    done = await node.run(
        argv, check=False, capture_stdout=True, capture_stderr=True, user=daemon.user, cwd="/"
    )
    return done.returncode == 0


async def test_what_is_set_in_one_tunnel_is_not_set_in_another_of_the_same_name() -> None:
    async with patchbay.open_lab() as lab:
        router = await lab.add_router("router")
        one, two = [await lab.add_device(name, uplink=router) for name in ("one", "two")]
        start = ["sh", "-c", DAEMONS["wireguard-go"].start]
        async with one.open_process(start), two.open_process(start):
            for node, port in ((one, 1111), (two, 2222)):
                script = f"wg set wg0 listen-port {port}"

                async def is_set(node: patchbay.Device = node, script: str = script) -> bool:
                    done = await node.run(["sh", "-c", script], check=False, capture_stderr=True)
                    return done.returncode == 0

                await await_until(is_set)
            for node, port in ((one, 1111), (two, 2222)):
                done = await node.run(["wg", "show", "wg0", "listen-port"], capture_stdout=True)
                assert int(done.stdout) == port
