"""Waiting for servers and for what processes print."""

from __future__ import annotations

import socket
import subprocess
from functools import partial

import pytest
import trio

import patchbay
from patchbay.change import RemoveDevice
from tests.kernel.labs import home_lab
from tests.patience import DEADLINE

pytestmark = pytest.mark.kernel

SERVE = "import signal, socket; s = socket.create_server(({host!r}, 8000), family={family}); signal.pause()"


@pytest.mark.ordinary
@pytest.mark.parametrize(("host", "family"), [("", 2), ("127.0.0.1", 2), ("::1", 10), ("::", 10)])
async def test_a_server_that_starts_meanwhile_is_waited_for(host: str, family: int) -> None:
    async with home_lab() as lab:
        server = lab.device("server")
        command = ["sh", "-c", 'read go && exec python3 -c "$0"', SERVE.format(host=host, family=family)]
        async with server.open_process(command, stdin=subprocess.PIPE) as process:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(server.listening, 8000, timeout=DEADLINE))
                with pytest.raises(trio.TooSlowError):
                    await server.listening(8000, timeout=0)
                assert nursery.child_tasks
                assert process.stdin
                await process.stdin.send_all(b"go\n")
        with pytest.raises(trio.TooSlowError):
            await lab.device("laptop").listening(8000, timeout=0)


async def test_sockets_of_another_protocol_and_clients_do_not_listen() -> None:
    async with home_lab() as lab:
        server, laptop = lab.device("server"), lab.device("laptop")
        with (
            server.socket(type=socket.SOCK_DGRAM) as udp,
            server.socket() as listening,
            server.socket() as bound,
            laptop.socket() as client,
            laptop.socket(type=socket.SOCK_DGRAM) as connected,
        ):
            udp.bind(("", 3478))
            listening.bind(("", 80))
            listening.listen()
            bound.bind(("", 81))
            client.connect((str(server.ip), 80))
            connected.connect((str(server.ip), 3478))
            await server.listening(3478, protocol="udp", timeout=0)
            await server.listening(80, timeout=0)
            for node, port, protocol in (
                (server, 3478, "tcp"),
                (server, 80, "udp"),
                (server, 81, "tcp"),
                (laptop, client.getsockname()[1], "tcp"),
                (laptop, connected.getsockname()[1], "udp"),
            ):
                with pytest.raises(trio.TooSlowError):
                    await node.listening(port, protocol=protocol, timeout=0)


async def test_a_port_that_stays_closed_is_an_error_that_names_those_that_are_open() -> None:
    async with home_lab() as lab:
        server = lab.device("server")
        with server.socket() as one, server.socket() as two:
            for sock, port in ((one, 9000), (two, 22)):
                sock.bind(("", port))
                sock.listen()
            with pytest.raises(trio.TooSlowError) as caught:
                await server.listening(8000, timeout=0.05)
            assert str(caught.value) == (
                "nothing in 'server' listens on TCP port 8000 after 0.05 s; open there: 22, 9000"
            )
        with pytest.raises(trio.TooSlowError, match="listens on UDP port 8000; open there: none"):
            await server.listening(8000, protocol="udp", timeout=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"port": 0}, "found port 0; accepted: 1 to 65535"),
        ({"port": 65536}, "found port 65536; accepted: 1 to 65535"),
        ({"port": 1, "protocol": "sctp"}, "found protocol 'sctp'; accepted: 'tcp', 'udp'"),
    ],
)
async def test_a_port_that_cannot_be_one_is_refused(arguments: dict[str, object], message: str) -> None:
    async with home_lab() as lab:
        with pytest.raises(ValueError, match=message):
            await lab.device("server").listening(**arguments)  # type: ignore[arg-type]


async def test_waiting_for_a_port_ends_with_the_error_of_the_node_or_lab() -> None:
    async def wait(
        device: patchbay.Device, error: type[Exception], *, task_status: trio.TaskStatus[None]
    ) -> None:
        task_status.started()
        with pytest.raises(error):
            await device.listening(8000, timeout=DEADLINE)

    async with trio.open_nursery() as after_the_lab, home_lab() as lab:
        await after_the_lab.start(wait, lab.device("server"), patchbay.LabClosedError)
        async with trio.open_nursery() as nursery:
            await nursery.start(wait, lab.device("laptop"), patchbay.StaleHandleError)
            await lab.apply(RemoveDevice("laptop"))


async def test_lines_of_a_process_are_read_as_they_come_and_go_on_after_a_break() -> None:
    async with home_lab() as lab:
        script = "printf 'one\\r\\n'; printf 'tw'; sleep 0.01; printf 'o\\n\\n\\377 four\\nend'"
        command = ["sh", "-c", script]
        async with lab.device("laptop").open_process(command, stdout=subprocess.PIPE) as process:
            async for line in process.lines():
                assert line == "one"
                break
            assert [line async for line in process.lines()] == ["two", "", "\ufffd four", "end"]
            assert [line async for line in process.lines()] == []
            assert await process.wait() == 0


async def test_a_line_comes_while_the_process_goes_on() -> None:
    async with home_lab() as lab:
        command = ["sh", "-c", "echo ready; exec sleep 1000"]
        async with lab.device("laptop").open_process(command, stdout=subprocess.PIPE) as process:
            with trio.fail_after(DEADLINE):
                assert await anext(process.lines()) == "ready"
            assert process.returncode is None


async def test_lines_of_a_process_without_a_pipe_are_refused() -> None:
    async with home_lab() as lab, lab.device("laptop").open_process(["true"]) as process:
        with pytest.raises(ValueError, match=r"stdout=subprocess\.PIPE"):
            await anext(process.lines())
