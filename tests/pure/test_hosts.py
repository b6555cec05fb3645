"""The files that say what names stand for, and when they are written."""

from ipaddress import ip_address

import pytest

from patchbay.change.base import Change
from patchbay.change.names import AddName, RemoveName, SetNameserver
from patchbay.change.nodes import RemoveDevice
from patchbay.errors import SpecError
from patchbay.layout.layout import Layout
from patchbay.plan.change import between
from patchbay.plan.hosts import FILES, names_files, own_file
from patchbay.tools.commands import Command, RemoveFile, WriteFile
from tests.pure.labs import layout_of

ONE, TWO, SIX = map(ip_address, ("192.0.2.1", "192.0.2.2", "2001:db8::1"))
LOCAL = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
NO_SERVER = "# No name server was set: questions are refused at once.\nnameserver 127.0.0.1\n"
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
    new = named(AddName("one.lab", (ONE,)))
    assert written(LAB, new) == {"/run/patchbay/hosts": f"{LOCAL}192.0.2.1 one.lab one.lab.\n"}


def test_a_name_server_changes_the_resolver_alone() -> None:
    assert written(LAB, named(SetNameserver(SIX))) == {
        "/run/patchbay/resolv.conf": "nameserver 2001:db8::1\n"
    }


def test_a_node_with_a_name_of_its_own_gets_both_files() -> None:
    old = named(AddName("all.lab", (ONE,)), SetNameserver(SIX))
    new = named(AddName("own.lab", (TWO,), "laptop"), layout=old)
    assert written(old, new) == {
        "/run/patchbay/laptop/hosts": f"{LOCAL}192.0.2.2 own.lab own.lab.\n192.0.2.1 all.lab all.lab.\n",
        "/run/patchbay/laptop/resolv.conf": "nameserver 2001:db8::1\n",
    }
    assert {command.owner for command in name_commands(old, new)} == {"laptop"}
    assert {command.why for command in name_commands(old, new)} == {"tell 'laptop' the names it can look up"}
    assert names_files(old, LAB.devices["laptop"]) == {name: f"/run/patchbay/{name}" for name in FILES}
    assert names_files(new, LAB.devices["laptop"]) == {name: f"/run/patchbay/laptop/{name}" for name in FILES}


def test_a_name_for_all_reaches_the_nodes_with_files_of_their_own() -> None:
    old = named(AddName("own.lab", (TWO,), "laptop"), SetNameserver(SIX, "phone"))
    assert [*written(old, named(AddName("all.lab", (ONE,)), layout=old))] == [
        "/run/patchbay/hosts",
        "/run/patchbay/laptop/hosts",
        "/run/patchbay/phone/hosts",
    ]


def test_nothing_is_written_where_nothing_changed() -> None:
    old = named(AddName("own.lab", (TWO,), "laptop"), AddName("all.lab", (ONE,)))
    assert written(old, named(AddName("all.lab", (ONE,)), layout=old)) == {}


def test_the_files_of_a_node_without_names_of_its_own_are_removed() -> None:
    old = named(AddName("own.lab", (TWO,), "laptop"))
    for new in (LAB, named(RemoveDevice("laptop"), layout=old)):
        commands = name_commands(old, new)
        assert [command.argv for command in commands] == [
            ("rm", "-f", f"/run/patchbay/laptop/{name}") for name in FILES
        ]


def test_a_nodes_own_name_wins_over_that_of_all() -> None:
    layout = named(AddName("x", (ONE,)), AddName("x", (TWO,), "laptop"))
    assert written(None, layout)[own_file("hosts", "laptop")] == f"{LOCAL}192.0.2.2 x x.\n"
    assert layout.names.resolve("laptop", "x") == (TWO,)
    assert layout.names.resolve("phone", "x") == layout.names.resolve("", "x") == (ONE,)
    assert layout.names.resolve("laptop", "y") == ()


def test_a_name_has_addresses_of_both_families_from_one_call_or_several() -> None:
    layout = named(AddName("x", (ONE, SIX)), AddName("y", (ONE,)), AddName("x", (ONE, TWO)))
    assert written(LAB, layout)["/run/patchbay/hosts"] == (
        f"{LOCAL}192.0.2.1 x x.\n2001:db8::1 x x.\n192.0.2.2 x x.\n192.0.2.1 y y.\n"
    )
    assert layout.names.resolve("laptop", "x") == (ONE, SIX, TWO)


@pytest.mark.parametrize("name", ["db.lab", "DB.Lab", "db.lab.", "dB.lAB."])
def test_case_and_a_final_dot_do_not_make_another_name(name: str) -> None:
    layout = named(AddName("Db.Lab", (ONE,)), AddName(name, (SIX,)))
    assert layout.names.resolve("", name) == (ONE, SIX)
    assert named(RemoveName(name), layout=layout).names == LAB.names


def test_a_name_in_another_alphabet_is_found_by_both_spellings() -> None:
    layout = named(AddName("Bücher.lab", (ONE,)), AddName("xn--bcher-kva.lab", (SIX,)))
    assert layout.names.resolve("", "bücher.LAB") == (ONE, SIX)
    names = "xn--bcher-kva.lab bücher.lab xn--bcher-kva.lab. bücher.lab."
    assert written(LAB, layout)["/run/patchbay/hosts"] == f"{LOCAL}192.0.2.1 {names}\n2001:db8::1 {names}\n"


def test_addresses_are_removed_one_by_one_or_all_together() -> None:
    layout = named(AddName("x", (ONE, TWO, SIX)), AddName("y", (ONE,)), AddName("x", (TWO,), "laptop"))
    fewer = named(RemoveName("x", (TWO, ONE)), layout=layout)
    assert fewer.names.resolve("phone", "x") == (SIX,)
    assert fewer.names.resolve("laptop", "x") == (TWO,)
    gone = named(RemoveName("x"), RemoveName("y"), RemoveName("x", (TWO,), "laptop"), layout=fewer)
    assert gone.names == LAB.names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (RemoveName("db.laab"), "name: unknown name 'db.laab'; known: db.lab; did you mean 'db.lab'?"),
        (RemoveName("a..b"), "name: unknown name 'a..b'; known: db.lab"),
        (RemoveName("db.lab", node="laptop"), "name: unknown name 'db.lab'; there is none yet"),
        (RemoveName("db.lab", (ONE, TWO)), "ips: 'db.lab' has 192.0.2.1, and not 192.0.2.2"),
        (AddName("db.lab", ()), "ips: found none; accepted: one IPv4 or IPv6 address or more"),
    ],
)
def test_what_is_not_there_cannot_be_removed(change: Change, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        change.apply(named(AddName("db.lab", (ONE,))))
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *(
            (name, "cannot be in a hosts file")
            for name in ("two words", "a#b", "tab\t", "new\nline", "a\udcff")
        ),
        *((name, "cannot be a host name") for name in ("", ".", "a..b", "x" * 64, ".".join(["x" * 60] * 5))),
        *((name, "is an address") for name in ("192.0.2.1", "127.1", "0x7f000001", "::1", "fe80::1%eth0")),
        *((name, "is the loopback interface") for name in ("localhost", "LocalHost.", "ip6-loopback")),
    ],
)
def test_what_no_host_can_be_looked_up_by_is_refused(name: str, why: str) -> None:
    with pytest.raises(SpecError, match=why):
        AddName(name, (ONE,)).apply(LAB)


def test_every_file_that_is_written_is_one_that_nodes_see() -> None:
    assert {path.rpartition("/")[2] for path in written(None, LAB)} == {*FILES}
