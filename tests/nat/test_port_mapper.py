"""The server of port mappings: its starts, its ends, and what becomes of the mappings."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

import patchbay
from patchbay.lab.lab import Lab
from patchbay.layout.layout import PolicyLayout, RouterLayout
from patchbay.plan import policy, port_mapping
from patchbay.plan.resources import Key, Resource
from patchbay.tools.commands import WriteFile
from tests.kernel.inside import processes_of, run_in_lab
from tests.nat.asking import (
    INSIDE,
    OUTSIDE,
    WITNESS,
    NatPmp,
    Upnp,
    gateway,
    is_shut,
    mapping_lab,
    reached,
    serving,
    told,
)
from tests.ordinary_user import OrdinaryUser
from tests.patience import DEADLINE, await_until
from tests.processes import run

pytestmark = pytest.mark.kernel


async def until_gone(lab: Lab, name: str) -> None:
    async def gone() -> bool:
        return not processes_of(lab, name)

    await await_until(gone)


async def kill(lab: Lab, name: str) -> dict[str, Any]:
    """Kill the one process of that name; the event that tells of it."""
    (pid,) = processes_of(lab, name)
    os.kill(pid, signal.SIGKILL)
    with trio.fail_after(DEADLINE):
        async for event in lab.events():
            if event.kind == "service_lost":
                return dict(event.fields)
    raise AssertionError("the lab ended without it")


# -- reboots


@pytest.mark.parametrize("reboot", ["flush_nat_state", "set_nat_mode"])
async def test_a_reboot_forgets_the_mappings_and_serves_again(reboot: str) -> None:
    async with mapping_lab() as lab:
        laptop, phone, home = lab.device("laptop"), lab.device("phone"), lab.router("home")
        async with serving(laptop, phone):
            before = processes_of(lab, "port_mapper")

            async def epoch() -> int:
                """Seconds since the server has begun without mappings (RFC 6886 section 3.6)."""
                found = re.search(r"epoch = (\d+)", await NatPmp().ask(phone))
                assert found
                return int(found[1])

            async def has_run() -> bool:
                return await epoch() >= 2

            await await_until(has_run)
            for _ in range(3):
                await Upnp().map(laptop, "udp")
                assert await reached(lab, "udp", OUTSIDE) == "laptop"
                rebooted = trio.current_time()
                await (home.flush_nat_state() if reboot == "flush_nat_state" else home.set_nat_mode("home"))
                await NatPmp().map(phone, "udp", outside=WITNESS, inside=WITNESS)
                assert await is_shut(lab, "udp", OUTSIDE)
                assert await epoch() < trio.current_time() - rebooted + 1
                await Upnp().map(phone, "udp")
                assert await reached(lab, "udp", OUTSIDE) == "phone"
                await home.flush_nat_state()
            assert processes_of(lab, "port_mapper") == before
            assert len(processes_of(lab, "miniupnpd")) == 1


async def test_without_a_nat_nothing_is_served_and_with_another_it_is_again() -> None:
    async with mapping_lab() as lab:
        laptop, home = lab.device("laptop"), lab.router("home")
        for _ in range(5):
            await home.set_nat_mode("none")
            await home.set_nat_mode("full-cone")
        await home.set_nat_mode("none")
        assert home.port_mapping
        await until_gone(lab, "miniupnpd")
        await until_gone(lab, "port_mapper")
        assert "port_mapper" not in lab.trace()
        assert "upnp" not in await told(home, "/usr/sbin/nft", "list", "tables")
        await home.flush_nat_state()
        await home.set_nat_mode("home")
        async with serving(laptop):
            await NatPmp().map(laptop, "tcp")
            assert await reached(lab, "tcp", OUTSIDE) == "laptop"


async def test_two_routers_serve_their_own_hosts() -> None:
    async with mapping_lab() as lab:
        late = await lab.add_router("a 'name' & <more>", preset="home", port_mapping=True)
        guest = await lab.add_device("guest", uplink=late)
        laptop = lab.device("laptop")
        async with serving(laptop, guest):
            assert await Upnp().map(laptop, "udp") == (str(lab.router("home").ip), OUTSIDE)
            assert await Upnp().map(guest, "udp") == (str(late.ip), OUTSIDE)
            await late.flush_nat_state()
            assert await reached(lab, "udp", OUTSIDE) == "laptop"
            description = f"http://{gateway(guest)}:{port_mapping.HTTP_PORT}/rootDesc.xml"
            assert "<friendlyName>a-name-more</friendlyName>" in await told(guest, "curl", description)


# -- its end


async def test_a_server_that_is_killed_is_reported() -> None:
    with pytest.raises(patchbay.PortMappingLostError, match=r"on router 'home' ended \(killed\?\)"):
        async with mapping_lab() as lab:
            assert await kill(lab, "port_mapper") == {
                "service": "port-mapper",
                "router": "home",
                "reason": "the server of port mappings on router 'home' ended (killed?)",
            }
            await until_gone(lab, "miniupnpd")


async def test_a_miniupnpd_that_is_killed_ends_its_server() -> None:
    with pytest.raises(patchbay.PortMappingLostError, match="ended:\nminiupnpd ended: killed by signal 9"):
        async with mapping_lab() as lab:
            assert "Listening for NAT-PMP/PCP" in (await kill(lab, "miniupnpd"))["reason"]
            await until_gone(lab, "port_mapper")


@pytest.mark.parametrize("name", ["port_mapper", "miniupnpd"])
async def test_a_reboot_brings_a_lost_server_back(name: str) -> None:
    async with mapping_lab() as lab:
        laptop = lab.device("laptop")
        await NatPmp().map(laptop, "udp")
        await kill(lab, name)
        await lab.router("home").flush_nat_state()
        async with serving(laptop):
            await NatPmp().map(laptop, "udp", outside=WITNESS, inside=WITNESS)
            assert await is_shut(lab, "udp", OUTSIDE)


async def test_a_lost_server_is_no_matter_where_none_is_wanted_any_more() -> None:
    async with mapping_lab() as lab:
        await kill(lab, "port_mapper")
        await lab.router("home").set_nat_mode("none")


# -- where it fails


async def test_without_miniupnpd_the_error_says_what_to_install_and_the_lab_is_as_it_was() -> None:
    async with mapping_lab() as lab:
        (program,) = (await lab.ix.run(["which", "miniupnpd"], capture_stdout=True)).stdout.decode().split()
        before = lab.state()
        await run_in_lab(lab, "mount", "--bind", "/dev/null", program)
        with pytest.raises(
            patchbay.CommandFailed, match="could not serve port mappings on router 'late'"
        ) as caught:
            await lab.add_router("late", preset="home", port_mapping=True)
        assert "sudo apt-get install miniupnpd-nftables" in str(caught.value)
        assert lab.state() == before
        assert len(processes_of(lab, "port_mapper")) == 1
        await run_in_lab(lab, "umount", program)
        late = await lab.add_router("late", preset="home", port_mapping=True)
        guest = await lab.add_device("guest", uplink=late)
        assert await NatPmp().map(guest, "udp") == (str(late.ip), OUTSIDE)


def wrongly_for_full_cones(
    router: RouterLayout, now: PolicyLayout, server: port_mapping.MappingServer
) -> Iterator[tuple[Key, Resource]]:
    """The server of port mappings, with a wrong configuration on routers whose NAT is a full cone."""
    for key, resource in port_mapping.serving(router, now, server):
        if key[0] == "file" and now.nat == "full-cone":
            (write,) = resource.make
            assert isinstance(write, WriteFile)
            make = (evolve(write, content=f"{write.content}no such option\n"),)
            yield key, evolve(resource, make=make, identity=make)
        else:
            yield key, resource


async def test_a_restart_that_fails_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mapping_lab() as lab:
        laptop, home = lab.device("laptop"), lab.router("home")
        with monkeypatch.context() as patch:
            patch.setattr(policy, "serving", wrongly_for_full_cones)
            with pytest.raises(patchbay.CommandFailed, match="parsing error"):
                await home.set_nat_mode("full-cone")
        assert home.nat == "home"
        assert await NatPmp().map(laptop, "udp") == (str(home.ip), OUTSIDE)


# -- by hand


async def test_the_replayed_trace_of_a_lab_serves_port_mappings(tmp_path: Path) -> None:
    async with mapping_lab() as lab:
        await lab.router("home").set_nat_mode("none")
        await lab.router("home").set_nat_mode("home")
        await lab.router("home").flush_nat_state()
        script, laptop, outside = lab.trace(), lab.device("laptop"), lab.router("home").ip
        asked = ["natpmpc", "-g", gateway(laptop), "-a", str(OUTSIDE), str(INSIDE), "udp", "600"]
    assert script.count("python3 -m patchbay.services.port_mapper") == 1
    assert script.count("table inet upnp {") == 1
    (tmp_path / "lab.sh").write_text(script)
    argv = ["sh", str(tmp_path / "lab.sh"), "nsenter", "--net=/run/netns/laptop", *asked]
    # The environment of somebody whose python3 knows patchbay.
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = run(argv, env=env, check=True, text=True)
    assert f"Public IP address : {outside}" in done.stdout
    assert f"Mapped public port {OUTSIDE} protocol UDP to local port {INSIDE}" in done.stdout


async def test_a_lab_file_has_it(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('[[router]]\nname = "r"\npreset = "home"\nport_mapping = true\n')
    async with patchbay.open_lab(tmp_path / "lab.toml") as lab:
        assert lab.router("r").port_mapping
        assert lab.state()["routers"]["r"]["port_mapping"] is True
        assert len(processes_of(lab, "miniupnpd")) == 1


MAPPING = """
import trio, patchbay

async def main():
    async with patchbay.open_lab() as lab:
        home = await lab.add_router("home", preset="home", port_mapping=True)
        laptop = await lab.add_device("laptop", uplink=home)
        await laptop.run(["natpmpc", "-g", str(home.downstream_gw), "-a", "7000", "7001", "udp", "600"])

trio.run(main)
"""


def test_an_ordinary_user_has_it_too(ordinary_user: OrdinaryUser) -> None:
    done = ordinary_user.run([ordinary_user.python, "-c", MAPPING])
    assert "Mapped public port 7000 protocol UDP to local port 7001" in done.stdout
