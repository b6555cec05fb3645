"""Wrong arguments raise what `subprocess`, `socket` and `os` raise for them, and end nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import patchbay
from tests.kernel.labs import home_lab
from tests.patience import DEADLINE

pytestmark = pytest.mark.kernel

Call = Callable[[patchbay.Device], Any]


def run(*argv: Any, **options: Any) -> tuple[Call, Callable[[], Any]]:
    return lambda node: node.run(list(argv), **options), lambda: subprocess.run(
        list(argv), check=True, **options
    )


def popen(*argv: Any, **options: Any) -> tuple[Call, Callable[[], Any]]:
    return lambda node: node.popen(list(argv), **options), lambda: subprocess.Popen(list(argv), **options)


def sock(*args: Any) -> tuple[Call, Callable[[], Any]]:
    return lambda node: node.socket(*args), lambda: socket.socket(*args)


def look_up(*args: Any) -> tuple[Call, Callable[[], Any]]:
    return lambda node: node.getaddrinfo(*args), lambda: socket.getaddrinfo(*args)


# A call in the node, and the same on the host, which says what is to be raised.
WRONG = {
    "a number in env": run("true", env={"RETRIES": 5}),
    "a null byte in argv": run("true", "a\0b"),
    "a null byte in env": run("true", env={"A": "b\0"}),
    "a null byte in a name of env": run("true", env={"A\0": "b"}),
    "a null byte in cwd": run("true", cwd="/tmp\0"),
    "a variable with =": run("true", env={"A=B": "c"}),
    "a lone surrogate": run("true", "\ud800"),
    "a lone surrogate in env": run("true", env={"A": "\ud800"}),
    "a number in argv": run("sleep", 5),
    "a program that is not there": run("no-such-program"),
    "a folder that is not there": run("true", cwd="/no/such/folder"),
    "a file as folder": run("true", cwd="/etc/passwd"),
    "a file that is no program": run("/etc/passwd"),
    "an unknown user": run("true", user="no-such-user"),
    "a negative user": run("true", user=-5),
    "a null byte in popen": popen("true", "a\0b"),
    "a number in popen's env": popen("true", env={"RETRIES": 5}),
    "no program for popen": popen("no-such-program"),
    "no folder for popen": popen("true", cwd="/no/such/folder"),
    "a family that is too large": sock(2**40, 1),
    "a family that is text": sock("inet", 1),
    "a family that is none": sock(socket.AF_INET, 77),
    "a name with an empty label": look_up("a..b", 80),
    "a label over 63 bytes": look_up("a" * 80 + ".test", 80),
    "a port that is too large": look_up("127.0.0.1", 2**70),
    "flags that are too large": look_up("127.0.0.1", 80, 0, 0, 0, 2**70),
    "a service that is not there": look_up("127.0.0.1", "no-such-service"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_argument_raises_as_on_the_host_and_ends_nothing(wrong: str) -> None:
    in_node, on_host = WRONG[wrong]
    with pytest.raises(Exception) as expected:
        on_host()
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        async with laptop.open_process(["sleep", "1000"]) as other:
            worker = await laptop.call(os.getpid)
            with trio.fail_after(DEADLINE), pytest.raises(expected.type):
                refused = in_node(laptop)
                if isinstance(refused, Awaitable):
                    await refused
            assert other.returncode is None
            assert await laptop.call(os.getpid) == worker


async def test_a_variable_without_a_name_is_refused_as_exec_refuses_it() -> None:
    with pytest.raises(ValueError):
        os.execve("/bin/true", ["true"], {"": "x"})
    async with home_lab() as lab:
        with pytest.raises(ValueError, match="illegal environment variable name"):
            await lab.device("laptop").run(["true"], env={"": "x"})


async def test_a_signal_that_is_none_is_refused_and_the_process_goes_on() -> None:
    async with home_lab() as lab:
        async with lab.device("laptop").open_process(["sleep", "1000"]) as process:
            with pytest.raises(OSError, match="Invalid argument"):
                os.kill(os.getpid(), 9999)
            with pytest.raises(OSError, match="Invalid argument"):
                process.send_signal(9999)
            assert process.returncode is None
            process.send_signal(0)
            process.kill()
            assert await process.wait() == -9


async def test_an_error_of_the_system_names_the_node() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        with pytest.raises(FileNotFoundError, match=r"in 'laptop': .*no-such-program") as failure:
            await laptop.run(["no-such-program"])
        assert failure.value.filename == "no-such-program"
        with pytest.raises(FileNotFoundError, match=r"in 'laptop': .*/no/such/folder"):
            laptop.popen(["true"], cwd="/no/such/folder")


async def test_folders_words_and_input_are_taken_as_trio_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    async with home_lab() as lab:
        run = lab.device("laptop").run
        for cwd in ("below", Path("below"), b"below", "."):
            done = await run(["pwd"], cwd=cwd, capture_stdout=True)
            assert Path(os.fsdecode(done.stdout.strip())) == tmp_path / os.fsdecode(cwd)
        shell: list[Any] = [b"sh", "-c", 'echo "$A $0"', Path("/x")]
        assert (await run(shell, env={"A": Path("/y")}, capture_stdout=True)).stdout == b"/y /x\n"
        for stdin in (b"in", bytearray(b"in"), memoryview(b"in")):
            assert (await run(["cat"], stdin=stdin, capture_stdout=True)).stdout == b"in"
        (tmp_path / "file").write_bytes(b"from a file")
        with open("file", "rb") as file:  # noqa: ASYNC230  a file of a few bytes
            assert (await run(["cat"], stdin=file, capture_stdout=True)).stdout == b"from a file"
        wrong: Any
        for wrong in ("text", subprocess.PIPE):
            with pytest.raises(ValueError) as expected:
                await trio.run_process(["cat"], stdin=wrong)
            with pytest.raises(expected.type):
                await run(["cat"], stdin=wrong)


async def test_a_wrong_stream_leaves_no_pipe_open() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        await laptop.run(["true"])
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(AttributeError, match="fileno"):
            async with laptop.open_process(["true"], stdout=subprocess.PIPE, stderr=object()):
                raise AssertionError("it was started")
        assert len(os.listdir("/proc/self/fd")) == before
