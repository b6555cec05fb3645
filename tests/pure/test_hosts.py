"""The files that say what names stand for, and when they are written."""

from ipaddress import ip_address

import pytest

from patchbay.change.base import Change
from patchbay.change.names import SetName, SetNameserver
from patchbay.change.nodes import RemoveDevice
from patchbay.errors import SpecError
from patchbay.layout.layout import Layout
from patchbay.plan.change import between
from patchbay.plan.hosts import FILES, names_files, own_file
from patchbay.tools.commands import Command, RemoveFile, WriteFile
from tests.pure.labs import layout_of

ONE, TWO, SIX = map(ip_address, ("192.0.2.1", "192.0.2.2", "2001:db8::1"))
LOCAL = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
NO_SERVER = "# no nameserver was set for this lab\n"
LAB = layout_of("""
[[router]]
name = "r"
[device.laptop.eth0]
gateway = "r"
[device.phone.eth0]
gateway = "r"
""")


def named(*changes: Change, layout: Layout = LAB) -> Layout:
    for change in changes:
        layout = change.apply(layout)
    return layout


def written(old: Layout | None, new: Layout) -> dict[str, str]:
    return {command.argv[-1]: command.stdin for command in name_commands(old, new)}


def name_commands(old: Layout | None, new: Layout) -> list[Command]:
    return [command for command in between(old, new) if isinstance(command, WriteFile | RemoveFile)]


def test_a_new_lab_has_files_without_names() -> None:
    assert written(None, LAB) == {"/run/patchbay/hosts": LOCAL, "/run/patchbay/resolv.conf": NO_SERVER}
    commands = name_commands(None, LAB)
    assert {command.why for command in commands} == {"tell every node the names it can look up"}
    assert {command.owner for command in commands} == {"ix"}


def test_a_name_changes_the_hosts_file_alone() -> None:
    new = named(SetName("one.lab", ONE))
    assert written(LAB, new) == {"/run/patchbay/hosts": f"{LOCAL}192.0.2.1 one.lab\n"}


def test_a_name_server_changes_the_resolver_alone() -> None:
    assert written(LAB, named(SetNameserver(SIX))) == {
        "/run/patchbay/resolv.conf": "nameserver 2001:db8::1\n"
    }


def test_a_node_with_a_name_of_its_own_gets_both_files() -> None:
    old = named(SetName("all.lab", ONE), SetNameserver(SIX))
    new = named(SetName("own.lab", TWO, "laptop"), layout=old)
    assert written(old, new) == {
        "/run/patchbay/laptop/hosts": f"{LOCAL}192.0.2.2 own.lab\n192.0.2.1 all.lab\n",
        "/run/patchbay/laptop/resolv.conf": "nameserver 2001:db8::1\n",
    }
    assert {command.owner for command in name_commands(old, new)} == {"laptop"}
    assert {command.why for command in name_commands(old, new)} == {"tell 'laptop' the names it can look up"}
    assert names_files(old, LAB.devices["laptop"]) == {name: f"/run/patchbay/{name}" for name in FILES}
    assert names_files(new, LAB.devices["laptop"]) == {name: f"/run/patchbay/laptop/{name}" for name in FILES}


def test_a_name_for_all_reaches_the_nodes_with_files_of_their_own() -> None:
    old = named(SetName("own.lab", TWO, "laptop"), SetNameserver(SIX, "phone"))
    assert [*written(old, named(SetName("all.lab", ONE), layout=old))] == [
        "/run/patchbay/hosts",
        "/run/patchbay/laptop/hosts",
        "/run/patchbay/phone/hosts",
    ]


def test_nothing_is_written_where_nothing_changed() -> None:
    old = named(SetName("own.lab", TWO, "laptop"), SetName("all.lab", ONE))
    assert written(old, named(SetName("all.lab", ONE), layout=old)) == {}


def test_the_files_of_a_node_without_names_of_its_own_are_removed() -> None:
    old = named(SetName("own.lab", TWO, "laptop"))
    for new in (LAB, named(RemoveDevice("laptop"), layout=old)):
        commands = name_commands(old, new)
        assert [command.argv for command in commands] == [
            ("rm", "-f", f"/run/patchbay/laptop/{name}") for name in FILES
        ]


def test_a_nodes_own_name_wins_over_that_of_all() -> None:
    layout = named(SetName("x", ONE), SetName("x", TWO, "laptop"))
    assert written(None, layout)[own_file("hosts", "laptop")] == f"{LOCAL}192.0.2.2 x\n"
    assert layout.names.resolve("laptop", "x") == TWO
    assert layout.names.resolve("phone", "x") == layout.names.resolve("", "x") == ONE
    assert layout.names.resolve("laptop", "y") is None


@pytest.mark.parametrize("name", ["", "two words", "a#b", "tab\t", "new\nline"])
def test_what_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="cannot be in a hosts file; accepted: a host name"):
        SetName(name, ONE).apply(LAB)


def test_every_file_that_is_written_is_one_that_nodes_see() -> None:
    assert {path.rpartition("/")[2] for path in written(None, LAB)} == {*FILES}
