"""Services: how they are started, told, restarted and lost, whatever they serve."""

from __future__ import annotations

import errno

import pytest
import trio
from attrs import evolve

import patchbay
from patchbay.model.names import NsName
from patchbay.sandbox.services import Services
from patchbay.services.daemon import Daemon, accepts, logged
from patchbay.tools.service import Service
from tests.kernel import counting_service
from tests.patience import DEADLINE

pytestmark = pytest.mark.kernel

COUNTING = Service(
    ns=NsName("ix"),
    name="counting",
    module=counting_service.__name__,
    args=("one",),
    kind="counting",
    key=("counting",),
    title="the counting",
    packages=True,
)


async def told(services: Services) -> tuple[int, list[str]]:
    answer = await services.ask("ix", "counting", {"tell": True})
    assert answer["attrs"] == "attrs"
    return answer["told"], answer["args"]


async def test_a_service_with_packages_follows_a_change_or_restarts() -> None:
    async with patchbay.open_lab() as lab:
        services = lab._core.session.services
        await services.put(COUNTING)
        assert await told(services) == (0, ["one"])
        await services.put(evolve(COUNTING, args=("two",)))
        assert await told(services) == (1, ["one"])
        await services.put(evolve(COUNTING, args=("three",), restarts=True))
        assert await told(services) == (0, ["three"])
        assert services.runs(COUNTING)
        services.end(COUNTING)
        assert not services.runs(COUNTING)
        with pytest.raises(KeyError):
            await told(services)


async def test_a_service_that_is_asked_for_nonsense_says_so() -> None:
    async with patchbay.open_lab() as lab:
        with pytest.raises(OSError, match="accepted: anything but wrong") as raised:
            await lab._core.session.services.put(evolve(COUNTING, args=("wrong",)))
        assert raised.value.errno == errno.EINVAL


async def test_a_service_that_dies_leaves_its_last_words() -> None:
    async with patchbay.open_lab() as lab:
        services = lab._core.session.services
        died = trio.Event()
        words: list[tuple[Service, str]] = []

        def note(service: Service, said: str) -> None:
            words.append((service, said))
            died.set()

        services.died = note
        await services.put(COUNTING)
        with pytest.raises(BrokenPipeError):
            await services.ask("ix", "counting", {"die": True})
        with trio.fail_after(DEADLINE):
            await died.wait()
        assert words[0][0] == COUNTING
        assert words[0][1].splitlines()[-1] == "RuntimeError: as it was told"


# -- external daemons

SERVER = "import signal, sys; print('ready at last', file=sys.stderr, flush=True); signal.pause()"


def python(code: str, **more: object) -> Daemon:
    return Daemon(["python3", "-c", code], package="python3", **more)  # type: ignore[arg-type]


def test_a_daemon_is_ready_by_its_log_and_ends_when_asked() -> None:
    daemon = python(SERVER, ready=logged(b"at last"))
    daemon.wait_ready()
    assert daemon.end().splitlines() == ["python3 ended: killed by signal 15", "ready at last"]


def test_a_daemon_is_ready_once_its_port_is_open() -> None:
    serve = "import signal, socket; sock = socket.create_server(('127.0.0.7', 28317)); signal.pause()"
    daemon = python(serve, ready=accepts("127.0.0.7", 28317))
    daemon.wait_ready()
    assert accepts("127.0.0.7", 28317)(b"")
    daemon.end()
    assert not accepts("127.0.0.7", 28317)(b"")


def test_a_daemon_that_ends_before_it_serves_says_why() -> None:
    daemon = python(
        "import sys; sys.exit('no such\\nnoise\\nluck')", ready=logged(b"ready"), ignored=("noise",)
    )
    with pytest.raises(OSError, match="before it served, python3 ended: exit status 1\nno such\nluck"):
        daemon.wait_ready()


def test_a_daemon_that_is_not_there_comes_with_the_way_out() -> None:
    with pytest.raises(
        FileNotFoundError, match="no nosuchd on PATH; repair: sudo apt-get install nosuchd-pkg"
    ):
        Daemon(["nosuchd"], package="nosuchd-pkg", ready=logged(b""))
