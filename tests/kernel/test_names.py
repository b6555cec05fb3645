"""Names are part of a lab: batched, undone and recorded like everything else."""

import socket
from ipaddress import ip_address
from typing import Any

import dns.resolver
import pytest
import trio

import patchbay
from patchbay import CommandFailed, Device
from patchbay.change import RemoveDevice
from tests.kernel.inside import run_in_lab
from tests.kernel.labs import home_lab
from tests.patience import DEADLINE


async def hosts_of(device: Device) -> str:
    done = await device.run(["cat", "/etc/hosts"], capture_stdout=True)
    return done.stdout.decode()


async def test_names_that_are_set_in_a_batch_are_there_after_it() -> None:
    async with home_lab() as lab:
        laptop, server = lab.device("laptop"), lab.device("server")
        await laptop.run(["true"])
        async with lab.batch():
            lab.dns_entry("all.lab", "192.0.2.1")
            laptop.dns_entry("own.lab", "192.0.2.2")
            assert str(lab.resolve("all.lab")) == "192.0.2.1"
            assert str(laptop.resolve("own.lab")) == "192.0.2.2"
            assert "lab" not in await hosts_of(server)
        assert "192.0.2.2 own.lab own.lab.\n192.0.2.1 all.lab all.lab." in await hosts_of(laptop)
        assert "own.lab" not in await hosts_of(server)
        assert "all.lab" in await hosts_of(server)


async def addresses_of(device: Device, name: str) -> set[str]:
    """Return the addresses that glibc gives programs for a name."""
    done = await device.run(["getent", "ahosts", name], capture_stdout=True, check=False)
    return {line.split()[0] for line in done.stdout.decode().splitlines()}


@pytest.mark.ordinary
async def test_programs_find_all_addresses_of_a_name_in_any_spelling() -> None:
    async with home_lab() as lab:
        laptop, server = lab.device("laptop"), lab.device("server")
        given = {"192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"}
        lab.dns_entry("db.lab", "192.0.2.1", ip_address("2001:db8::1"))
        lab.dns_entry("DB.lab.", "192.0.2.2", "2001:db8::2")
        laptop.dns_entry("own.lab", "192.0.2.3", "192.0.2.4")
        for name in ("db.lab", "Db.LAB", "db.lab.", "DB.lab."):
            assert await addresses_of(server, name) == given
            with laptop.enter():
                found = await trio.socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)
            assert {address[0] for *_, address in found} == given
        assert await addresses_of(laptop, "OWN.lab.") == {"192.0.2.3", "192.0.2.4"}
        assert [str(address) for address in lab.resolve_all("db.LAB.")] == [
            *("192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"),
        ]
        assert str(lab.resolve("DB.lab")) == "192.0.2.1"
        lab.remove_dns_entry("Db.lab", "192.0.2.1", "2001:db8::2")
        assert await addresses_of(server, "db.lab") == {"192.0.2.2", "2001:db8::1"}
        laptop.remove_dns_entry("own.lab")
        assert await addresses_of(laptop, "own.lab") == set()
        with pytest.raises(patchbay.SpecError, match=r"unknown name 'own\.lab'"):
            laptop.remove_dns_entry("own.lab")
        assert lab.state()["dns"] == {"": {"db.lab": ["2001:db8::1", "192.0.2.2"]}}


def servers_of_dnspython() -> list[Any]:
    return [*dns.resolver.Resolver().nameservers]  # raises NoResolverConfiguration where there is none


@pytest.mark.parametrize("over", ["+notcp", "+tcp"])
async def test_questions_are_refused_in_the_node_where_no_name_server_was_set(over: str) -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        assert await laptop.call(servers_of_dnspython) == ["127.0.0.1"]
        patient = [f"+timeout={DEADLINE:g}", "+tries=1"]
        done = await laptop.run(["dig", over, *patient, "www.example"], capture_stdout=True, check=False)
        assert b"127.0.0.1#53" in done.stdout and b"connection refused" in done.stdout


@pytest.mark.parametrize("name", ["odd 'name' $HOME", "ünï", "UPPER", "a#b", "a..b"])
async def test_a_node_with_an_odd_name_finds_itself(name: str) -> None:
    async with home_lab() as lab:
        device = await lab.add_device(name, uplink="home")
        own = (await device.run(["hostname"], capture_stdout=True)).stdout.decode().strip()
        assert await addresses_of(device, own) == {str(device.ip), str(device.ip6)}
        assert await device.call(socket.gethostname) == own


async def test_a_name_that_another_task_removed_meanwhile_is_not_in_the_way_of_a_batch() -> None:
    async with home_lab() as lab, trio.open_nursery() as nursery:
        lab.dns_entry("old.lab", "192.0.2.1")
        began, go_on = trio.Event(), trio.Event()

        async def remove() -> None:
            async with lab.batch():
                lab.remove_dns_entry("old.lab")
                lab.dns_entry("new.lab", "192.0.2.2")
                began.set()
                await go_on.wait()

        nursery.start_soon(remove)
        await began.wait()
        lab.remove_dns_entry("old.lab")
        go_on.set()
        while lab.resolve("new.lab") is None:
            await trio.lowlevel.checkpoint()
        assert lab.resolve("old.lab") is None


async def test_names_of_a_batch_that_fails_are_not_there() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        with pytest.raises(ZeroDivisionError):
            async with lab.batch():
                lab.dns_entry("all.lab", "192.0.2.1")
                laptop.dns_entry("own.lab", "192.0.2.2")
                raise ZeroDivisionError
        assert lab.resolve("all.lab") is laptop.resolve("own.lab") is None
        assert ".lab" not in await hosts_of(laptop)


async def test_a_name_that_cannot_be_written_is_undone_and_is_in_the_journal() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        await run_in_lab(lab, "touch", f"/run/patchbay/{laptop.ns}")  # where the folder of its names would be
        with pytest.raises(CommandFailed, match="tell 'laptop' the names it can look up"):
            laptop.dns_entry("own.lab", "192.0.2.2")
        assert laptop.resolve("own.lab") is None
        tried = [record for record in lab.commands if record.undone]
        assert [record.tool for record in tried] == ["tee", "tee", "rm", "rm"]
        assert tried[0].status == 1
        await run_in_lab(lab, "rm", f"/run/patchbay/{laptop.ns}")
        laptop.dns_entry("other.lab", "192.0.2.2")
        assert "other.lab" in await hosts_of(laptop)
        assert "own.lab" not in await hosts_of(laptop)


async def test_a_name_that_is_set_while_another_task_changes_the_lab_stays() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        async with trio.open_nursery() as nursery:
            began, go_on = trio.Event(), trio.Event()

            async def change() -> None:
                async with lab.batch():
                    lab.dns_entry("batch.lab", "192.0.2.3")
                    began.set()
                    await go_on.wait()

            nursery.start_soon(change)
            await began.wait()
            lab.dns_entry("now.lab", "192.0.2.1")
            laptop.dns_entry("own.lab", "192.0.2.2")
            seen = await hosts_of(laptop)
            assert "now.lab" in seen and "own.lab" in seen and "batch.lab" not in seen
            go_on.set()
        seen = await hosts_of(laptop)
        assert all(name in seen for name in ("now.lab", "own.lab", "batch.lab"))
        # No name was taken away for a while.
        files = [record for record in lab.commands if record.argv[-1].endswith("hosts")]
        (first,) = [place for place, record in enumerate(files) if "now.lab" in record.input][:1]
        assert all("now.lab" in record.input for record in files[first:])
        assert [str(lab.resolve(name)) for name in ("now.lab", "batch.lab")] == ["192.0.2.1", "192.0.2.3"]


async def test_a_node_that_is_removed_ends_with_what_runs_in_it_and_its_handle_is_stale() -> None:
    async with home_lab() as lab:
        laptop, home = lab.device("laptop"), lab.router("home")
        laptop.dns_entry("own.lab", "192.0.2.2")
        async with laptop.open_process(["sleep", "1000"]) as process:
            await lab.apply(RemoveDevice("laptop"))
            assert await process.wait() != 0
        with pytest.raises(patchbay.StaleHandleError, match="is not in the lab"):
            await laptop.run(["true"])
        with pytest.raises(patchbay.StaleHandleError):
            laptop.ip  # noqa: B018
        assert "laptop" not in [device.name for device in lab.devices]
        assert "laptop" not in lab.state()["devices"]
        again = await lab.add_device("laptop", uplink=home)
        assert again is not laptop and again is lab.device("laptop")
        await again.run(["ping", "-c1", "-W60", str(lab.ix.ip)], capture_stdout=True)
        assert "own.lab" not in await hosts_of(again)


async def test_a_node_that_is_removed_and_added_in_one_batch_has_nothing_of_the_old_one() -> None:
    async with home_lab() as lab:
        laptop = lab.device("laptop")
        async with laptop.open_process(["sleep", "1000"]) as process:
            async with lab.batch():
                await lab.apply(RemoveDevice("laptop"))
                await lab.add_device("laptop", uplink="home")
            with trio.fail_after(DEADLINE):
                assert await process.wait() != 0
        again = lab.device("laptop")
        await again.run(["ping", "-c1", "-W60", str(lab.ix.ip)], capture_stdout=True)


async def test_a_name_of_a_node_is_removed_with_the_node_by_another_task() -> None:
    async with home_lab() as lab, trio.open_nursery() as nursery:
        began, go_on = trio.Event(), trio.Event()

        async def remove() -> None:
            async with lab.batch():
                await lab.apply(RemoveDevice("laptop"))
                began.set()
                await go_on.wait()

        nursery.start_soon(remove)
        await began.wait()
        lab.device("laptop").dns_entry("own.lab", "192.0.2.2")
        lab.dns_entry("now.lab", "192.0.2.1")
        go_on.set()
        while "laptop" in [device.name for device in lab.devices]:
            await trio.lowlevel.checkpoint()
        assert str(lab.resolve("now.lab")) == "192.0.2.1"
        assert lab.state()["dns"] == {"": {"now.lab": ["192.0.2.1"]}}
        lab.dns_entry("later.lab", "192.0.2.3")
        assert "later.lab" in await hosts_of(lab.device("server"))
