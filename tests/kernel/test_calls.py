"""Functions that run in a node."""

from __future__ import annotations

import functools
import gc
import os
import socket
import sys
import threading
import warnings
from pathlib import Path

import pytest
import trio
import trio.lowlevel

import patchbay
from tests.kernel.labs import home_lab
from tests.patience import DEADLINE, await_until

pytestmark = pytest.mark.kernel

FACTOR = 3


class OwnError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Unpicklable(Exception):
    def __reduce__(self) -> str:
        raise TypeError("no")


def interfaces(prefix: str) -> list[str]:
    return [prefix + name for name in sorted(os.listdir("/sys/class/net"))]


def times(value: int) -> int:
    return value * FACTOR


def fail(code: int) -> None:
    raise OwnError(code)


def fail_oddly() -> None:
    raise Unpicklable("odd")


def die() -> None:
    os._exit(9)


async def resolve_and_double(value: int) -> tuple[int, int]:
    await trio.lowlevel.checkpoint()
    return value * 2, trio.lowlevel.current_statistics().tasks_living


def meet(number: int, deadline: float) -> int:
    """Return when as many calls are here at once; all in one process, so they share what `sys` holds."""
    barrier: threading.Barrier = vars(sys).setdefault("_meeting", threading.Barrier(number))
    return barrier.wait(deadline)


async def write_when_cancelled(path: str) -> None:
    try:
        Path(path).write_text("begun")
        await trio.sleep_forever()
    finally:
        Path(path).write_text("cancelled")


@pytest.mark.ordinary
async def test_a_function_runs_in_the_node_with_its_arguments() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        assert await laptop.call(interfaces, "if:") == ["if:eth0", "if:lo"]
        assert await laptop.call(times, 7) == 21
        assert await laptop.call(functools.partial(times, 5)) == 15
        local = 4
        assert await laptop.call(lambda: local + FACTOR) == 7
        # By value: the worker need not be able to import the test.
        assert not await laptop.call(lambda: __name__ in sys.modules)
        assert await laptop.call(os.getcwd) == os.getcwd()


async def test_an_async_function_runs_under_the_workers_own_trio() -> None:
    async with home_lab() as lab:
        value, tasks = await lab.device("laptop").call_async(resolve_and_double, 21)
        assert value == 42
        assert tasks >= 1


async def test_an_exception_comes_back_as_itself_with_the_remote_traceback() -> None:
    async with home_lab() as lab:
        with pytest.raises(OwnError) as failure:
            await lab.device("laptop").call(fail, 5)
        assert failure.value.code == 5
        assert "in fail" in failure.value.__notes__[0]
        with pytest.raises(patchbay.WorkerError, match="odd"):
            await lab.device("laptop").call(fail_oddly)


async def test_the_wrong_kind_of_function_is_refused_before_it_runs() -> None:
    async with home_lab() as lab:
        with pytest.raises(TypeError, match=r"is for call_async\(\)"):
            await lab.device("laptop").call(resolve_and_double, 1)  # type: ignore[unused-coroutine]
        with pytest.raises(TypeError, match=r"is for call\(\)"):
            await lab.device("laptop").call_async(times, 1)  # type: ignore[arg-type]


async def test_an_exit_in_the_node_does_not_end_the_program() -> None:
    async with home_lab() as lab:
        with pytest.raises(patchbay.WorkerError, match="SystemExit: 3"):
            await lab.device("laptop").call(sys.exit, 3)
        assert await lab.device("laptop").call(times, 2) == 6


async def test_calls_run_side_by_side() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(laptop.call, meet, 10, DEADLINE)


@pytest.mark.ordinary
async def test_a_dead_worker_fails_its_calls_and_the_next_call_gets_another() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        with pytest.raises(patchbay.WorkerError, match="laptop"):
            await laptop.call(die)
        assert await laptop.call(times, 1) == 3


async def test_cancelling_reaches_an_async_call(tmp_path: Path) -> None:
    path = tmp_path / "told"

    async def says(word: str) -> None:
        async def it_does() -> bool:
            return path.exists() and path.read_text() == word

        await await_until(it_does, f"{word!r} in the file")

    async with home_lab() as lab:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.device("laptop").call_async, write_when_cancelled, str(path))
            await says("begun")
            nursery.cancel_scope.cancel()
        await says("cancelled")


async def test_a_large_value_travels_both_ways() -> None:
    data = os.urandom(5_000_000)
    async with home_lab() as lab:
        assert await lab.device("laptop").call(bytes, data) == data


async def test_plain_sockets_of_a_node_talk_across_the_lab() -> None:
    async with home_lab() as lab:
        server, laptop = lab.device("server"), lab.device("laptop")
        with (
            server.socket(socket.AF_INET, socket.SOCK_DGRAM) as at,
            laptop.socket(type=socket.SOCK_DGRAM) as sent,
        ):
            at.bind((str(server.ip), 5353))
            at.settimeout(DEADLINE)
            sent.sendto(b"hello", (str(server.ip), 5353))
            data, sender = at.recvfrom(100)
        assert data == b"hello"
        assert sender[0] == str(lab.router("home").uplink_ip)


async def test_a_reflector_echoes_once_its_block_is_entered() -> None:
    async with home_lab() as lab:
        async with lab.device("server").reflector(3478) as address:
            assert address == (str(lab.device("server").ip), 3478)
            with lab.device("laptop").enter():
                sock = trio.socket.socket(type=socket.SOCK_DGRAM)
                await sock.sendto(b"ping", address)
                with trio.fail_after(DEADLINE):
                    assert await sock.recvfrom(100) == (b"ping", address)
        async with lab.ix.reflector() as (host, port):
            assert host == str(lab.ix.ip)
            assert port > 0


async def test_a_worker_that_is_replaced_leaves_no_socket_open() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(patchbay.WorkerError):
                await laptop.call(os._exit, 1)
            assert await laptop.call(os.getpid) > 0
            gc.collect()
        assert [str(each.message) for each in caught if each.category is ResourceWarning] == []
