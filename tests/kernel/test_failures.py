"""A command that fails half-way leaves the lab as it was, and explains itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from attrs import evolve

import patchbay
from patchbay.change import RemoveDevice
from patchbay.lab.lab import Lab
from patchbay.layout.allocate import extend
from patchbay.model.lab import LabSpec, RouterPreset, RouterSpec
from patchbay.plan.change import between
from patchbay.tools.commands import Command, Ip, SetSysctl
from tests.kernel.inside import processes_of, run_in_lab
from tests.kernel.labs import PING
from tests.kernel.state import is_settled, kernel_state
from tests.patience import await_until

pytestmark = pytest.mark.kernel

ADDED = RouterSpec("home", preset=RouterPreset.HOME, upstream="dc", mtu=1400)


async def add_home(lab: Lab) -> patchbay.Router:
    return await lab.add_router("home", preset="home", upstream="dc", mtu=1400)


def router_plan(layout: Any) -> list[Command]:
    return list(between(layout, extend(layout, LabSpec(routers=(ADDED,)))))


def plan_positions() -> list[int]:
    from patchbay.layout.allocate import empty_layout

    dc = LabSpec(routers=(RouterSpec("dc", preset=RouterPreset.DATACENTER),))
    return list(range(len(router_plan(extend(empty_layout(), dc)))))


async def test_a_wrong_line_at_any_position_of_a_routers_plan_is_undone_and_reported(
    break_command: Callable[..., Any],
) -> None:
    async with patchbay.open_lab() as lab:
        # With a device in it: a bridge gets its link-local address with its first carrier, and keeps it.
        await lab.add_device("server", uplink=await lab.add_router("dc", preset="datacenter"))
        layout = lab._core.changes.applied
        await await_until(partial(has_settled, lab))
        before = await kernel_state(lab)
        for position in plan_positions():
            broken = router_plan(layout)[position]
            with break_command(lambda command, broken=broken: command == broken):
                with pytest.raises(patchbay.CommandFailed) as failure:
                    await add_home(lab)
            assert lab._core.changes.applied is layout
            assert [router.name for router in lab.routers] == ["dc"]
            await assert_explained(failure.value, broken)
            await until_state(lab, before)
        home = await add_home(lab)
        phone = await lab.add_device("phone", uplink=home)
        await phone.run([*PING, str(lab.ix.ip)], capture_stdout=True)
        await phone.run([*PING, str(lab.ix.ip6)], capture_stdout=True)


async def has_settled(lab: Lab) -> bool:
    return is_settled(await kernel_state(lab))


async def until_state(lab: Lab, wanted: dict[str, Any]) -> None:
    seen: dict[str, Any] = {}

    async def is_reached() -> bool:
        nonlocal seen
        seen = await kernel_state(lab)
        return seen == wanted

    try:
        await await_until(is_reached)
    except AssertionError:
        assert seen == wanted
        raise


async def assert_explained(error: patchbay.CommandFailed, broken: Command) -> None:
    text = str(error)
    assert error.intent == broken.why
    assert text.startswith(f"could not {broken.why}: ")
    assert error.status != 0
    assert f"namespace  {broken.ns or '(the lab' + chr(39) + 's own)'}" in text
    assert error.stderr
    assert "  repeat     " in text
    if isinstance(broken, Ip):
        assert "192.0.2.77" in error.input_line
        assert f"line {error.line}: route add 10.9.9.0/24" in text
        assert "Nexthop has invalid gateway" in error.stderr or "unreachable" in error.stderr
    elif isinstance(broken, SetSysctl):
        assert "net/no/such/setting" in error.repeat
    else:
        assert "line " in text
        assert "nowhere" in error.input_line


@pytest.mark.ordinary
async def test_a_word_that_ip_cannot_read_is_found_in_its_batch(break_command: Callable[..., Any]) -> None:
    def misspell(command: Ip) -> Ip:
        return evolve(command, args=("addr", "add", "10.0.0.300/24", "dev", "lan"))

    async with patchbay.open_lab() as lab:
        with break_command(lambda c: c.argv[1:3] == ("addr", "add"), misspell):
            with pytest.raises(patchbay.CommandFailed, match=r"line 3: addr add 10.0.0.300/24") as failure:
                await lab.add_router("dc", preset="datacenter")
        assert failure.value.namespace == "dc"
        assert failure.value.repeat == "nsenter --net=/run/netns/dc ip addr add 10.0.0.300/24 dev lan"


async def test_the_journal_marks_what_was_undone(break_command: Callable[..., Any]) -> None:
    async with patchbay.open_lab() as lab:
        with (
            break_command(lambda c: c.argv[1:4] == ("link", "set", "dev")),
            pytest.raises(patchbay.CommandFailed),
        ):
            await lab.add_router("dc", preset="datacenter")
        undone = [record for record in lab.commands if record.owner == "dc"]
        assert undone
        assert all(record.undone for record in undone)
        failed = [record for record in undone if record.status]
        assert [record.argv[1:3] for record in failed] == [("route", "add")]
        assert any(record.status is None for record in undone)
        assert "dc" not in lab.trace()
        assert "# undone: ip netns add dc\n" in lab.trace(everything=True)


async def test_a_failed_batch_leaves_nothing_and_its_handles_stale(break_command: Callable[..., Any]) -> None:
    async with patchbay.open_lab() as lab:
        with break_command(lambda c: "default" in c.argv), pytest.raises(patchbay.CommandFailed):
            async with lab.batch():
                home = await lab.add_router("home", preset="home")
                laptop = await lab.add_device("laptop", uplink=home)
                assert str(laptop.ip) == "10.0.0.2"
                with pytest.raises(patchbay.StaleHandleError, match="waits for its batch"):
                    await laptop.run(["true"])
        assert (lab.routers, lab.devices) == ((), ())
        with pytest.raises(patchbay.StaleHandleError):
            await laptop.run(["true"])
        again = await lab.add_device("laptop", uplink=await lab.add_router("home", preset="home"))
        await again.run(["true"])
        with pytest.raises(patchbay.StaleHandleError):
            laptop.socket()


async def test_a_cancelled_call_leaves_the_lab_as_it_was() -> None:
    async with patchbay.open_lab() as lab:
        with trio.CancelScope() as scope:
            scope.cancel()
            await lab.add_router("dc", preset="datacenter")
        assert lab.routers == ()
        assert lab.router is not None
        await lab.add_router("dc", preset="datacenter")


async def test_a_batch_whose_block_fails_leaves_nothing() -> None:
    async with patchbay.open_lab() as lab:
        with pytest.raises(LookupError):
            async with lab.batch():
                await lab.add_router("dc", preset="datacenter")
                raise LookupError
        assert lab.routers == ()


async def test_bad_input_to_a_call_changes_nothing() -> None:
    async with patchbay.open_lab() as lab:
        before = len(lab.commands)
        dc = await lab.add_router("dc", preset="datacenter")
        applied = len(lab.commands)
        assert applied > before
        with pytest.raises(patchbay.SpecError, match="did you mean 'home'"):
            await lab.add_router("home", preset="hom")
        with pytest.raises(patchbay.SpecError, match="duplicate name 'dc'"):
            await lab.add_device("dc", uplink=dc)
        with pytest.raises(patchbay.SpecError, match="needs an interface"):
            await lab.add_device("nothing")
        assert len(lab.commands) == applied


async def test_an_ip_that_is_kept_tells_each_batch_its_own_first_error() -> None:
    async with patchbay.open_lab() as lab:
        told = partial(keep, lab)
        assert await told("netns add a", "netns add b") == (0, "")
        assert await told("netns add c", "netns add a", "netns add d") == (
            1,
            'Cannot create namespace file "/run/netns/a": File exists\nCommand failed -:2\n',
        )
        assert await told("link add name x type nosuch") == (
            1,
            "Error: Unknown device type.\nCommand failed -:1\n",
        )
        # At a word that it cannot read it ends, and another takes its place.
        status, said = await told("netns add e", "link add name x mtu many type dummy", "netns add f")
        assert (status, said) == (1, 'Error: argument "many" is wrong: Invalid "mtu" value\n\n')
        assert await told("netns add g") == (0, "")
        assert (await run_in_lab(lab, "ls", "/run/netns")).split() == ["a", "b", "c", "d", "e", "g", "ix"]


async def keep(lab: Lab, *lines: str) -> tuple[int, str]:
    steps = [["keep", "".join(f"{line}\n" for line in lines)]]
    answer = await lab._core.session.sandbox.agent.request({"lanes": [["", steps]]})
    (result,) = answer["results"][0]
    return result["status"], result["err"]


async def test_no_ip_is_kept_that_would_keep_a_removed_namespace() -> None:
    async with patchbay.open_lab() as lab:
        home = await lab.add_router("home", preset="home")
        await lab.add_device("laptop", uplink=home)

        assert processes_of(lab, "ip")
        await lab.apply(RemoveDevice("laptop"))

        async def none_is_kept() -> bool:
            return not processes_of(lab, "ip")

        await await_until(none_is_kept)
