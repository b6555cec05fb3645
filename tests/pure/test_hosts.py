"""The files that say what names stand for, and when they are written."""

from ipaddress import ip_address

from patchbay.layout.layout import Names
from patchbay.model.names import NsName
from patchbay.plan.hosts import FILES, name_files, own_file
from patchbay.plan.plan import Plan

ONE, TWO, SIX = map(ip_address, ("192.0.2.1", "192.0.2.2", "2001:db8::1"))
LOCAL = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
NO_SERVER = "# no nameserver was set for this lab\n"
NS_OF = {"laptop": NsName("laptop-ns"), "phone": NsName("phone")}


def written(plan: Plan) -> dict[str, str]:
    return {command.argv[1]: command.stdin for command in plan}


def test_a_new_lab_has_files_without_names() -> None:
    plan = name_files(None, Names(), {})
    assert written(plan) == {"/run/patchbay/hosts": LOCAL, "/run/patchbay/resolv.conf": NO_SERVER}
    assert {command.why for command in plan} == {"tell every node the names it can look up"}
    assert {command.owner for command in plan} == {"ix"}


def test_a_name_changes_the_hosts_file_alone() -> None:
    names = Names().with_host("", "one.lab", ONE)
    assert written(name_files(Names(), names, {})) == {"/run/patchbay/hosts": f"{LOCAL}192.0.2.1 one.lab\n"}


def test_a_name_server_changes_the_resolver_alone() -> None:
    names = Names().with_nameserver("", SIX)
    assert written(name_files(Names(), names, {})) == {
        "/run/patchbay/resolv.conf": "nameserver 2001:db8::1\n"
    }


def test_a_node_with_a_name_of_its_own_gets_both_files() -> None:
    old = Names().with_host("", "all.lab", ONE).with_nameserver("", SIX)
    plan = name_files(old, old.with_host("laptop", "own.lab", TWO), NS_OF)
    assert written(plan) == {
        "/run/patchbay/laptop-ns/hosts": f"{LOCAL}192.0.2.2 own.lab\n192.0.2.1 all.lab\n",
        "/run/patchbay/laptop-ns/resolv.conf": "nameserver 2001:db8::1\n",
    }
    assert {command.owner for command in plan} == {"laptop-ns"}
    assert {command.why for command in plan} == {"tell 'laptop' the names it can look up"}


def test_a_name_for_all_reaches_the_nodes_with_files_of_their_own() -> None:
    old = Names().with_host("laptop", "own.lab", TWO).with_nameserver("phone", SIX)
    changed = written(name_files(old, old.with_host("", "all.lab", ONE), NS_OF))
    assert [*changed] == [
        "/run/patchbay/hosts",
        "/run/patchbay/laptop-ns/hosts",
        "/run/patchbay/phone/hosts",
    ]


def test_nothing_is_written_where_nothing_changed() -> None:
    names = Names().with_host("laptop", "own.lab", TWO).with_host("", "all.lab", ONE)
    assert not name_files(names, names.with_host("", "all.lab", ONE), NS_OF)


def test_a_nodes_own_name_wins_over_that_of_all() -> None:
    names = Names().with_host("", "x", ONE).with_host("laptop", "x", TWO)
    text = written(name_files(None, names, NS_OF))[own_file("hosts", "laptop-ns")]
    assert text == f"{LOCAL}192.0.2.2 x\n"
    assert names.resolve("laptop", "x") == TWO
    assert names.resolve("phone", "x") == names.resolve("", "x") == ONE
    assert names.resolve("laptop", "y") is None


def test_names_are_values_that_do_not_change() -> None:
    names = Names()
    names.with_host("", "x", ONE)
    names.with_nameserver("laptop", ONE)
    assert names == Names()
    assert names.with_nameserver("laptop", ONE).scopes() == {"laptop"}


def test_every_file_that_is_written_is_one_that_nodes_see() -> None:
    assert {path.rpartition("/")[2] for path in written(name_files(None, Names(), {}))} == {*FILES}
