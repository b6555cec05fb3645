"""The journal as a shell script, read by a real shell."""

import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from patchbay.change.links import LoseLink, UseEmulator
from patchbay.change.names import AddName
from patchbay.change.nodes import Add
from patchbay.config.draft import Draft
from patchbay.layout.allocate import lay_out
from patchbay.model.lab import Addresses, LabSpec
from patchbay.model.link import Emulator
from patchbay.model.names import NsName
from patchbay.plan.change import between
from patchbay.record.history import layout_after, to_line
from patchbay.record.trace import as_script, of_node
from patchbay.tools.commands import Command, Ip, Nft, SetSysctl, WriteFile, by_hand, describe, heading
from tests.pure.goldens import FOLDER
from tests.pure.journals import journal_of
from tests.pure.labs import QUICK, labs, layout_of
from tests.pure.walks import walk

ODD_LAB = layout_of((FOLDER / "odd-names.toml").read_text(encoding="utf-8"))


def shell(*arguments: str, script: str) -> str:
    done = subprocess.run(["sh", *arguments], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def plain(script: str) -> list[str]:
    """The lines that are no comments."""
    return [line for line in script.splitlines() if line and not line.startswith("#")]


def test_a_shell_can_read_the_script_of_a_lab_with_odd_names() -> None:
    records = journal_of(between(None, ODD_LAB)).records()
    script = as_script(records, "a lab called\n$(reboot) {nodes} 'x'")
    shell("-n", script=script)
    assert script.startswith("#!/bin/sh\n# a lab called $(reboot) {nodes} 'x'\n#\n")
    assert "#   Grandma-s-router\n#   node\n#   lo\n" in script
    assert script.endswith('exec "$@"\n')


def test_the_script_has_every_command_in_the_order_of_the_journal() -> None:
    plan = between(None, ODD_LAB)
    script = as_script(journal_of(plan).records(), "odd")
    places = [script.index(describe(command)) for command in plan]
    assert places == sorted(places)


def test_commands_for_one_purpose_are_below_one_heading() -> None:
    script = as_script(journal_of(between(None, ODD_LAB)).records(), "odd")
    assert script.count("# set how device 'lo' treats packets\n") == 1
    assert heading(Ip(None, (), why="two\nlines ", owner=NsName("a"))) == "\n# two lines\n"


@pytest.mark.parametrize(
    ("changed", "comment"),
    [({"status": 1}, "exited 1"), ({"status": None}, "not run"), ({"undone": True}, "undone")],
    ids=["failed", "not run", "undone"],
)
def test_an_undone_command_is_a_comment(changed: dict[str, Any], comment: str) -> None:
    rules = Nft(NsName("a"), "table inet x {\n\tchain y {\n\t}\n}\n", why="load rules", owner=NsName("a"))
    (record,) = journal_of([rules]).records()
    script = as_script([evolve(record, **changed)], "lab")
    commented = [line for line in script.splitlines() if line.startswith(f"# {comment}: ")]
    assert [line.removeprefix(f"# {comment}: ") + "\n" for line in commented] == describe(rules).splitlines(
        keepends=True
    )
    assert plain(script) == plain(as_script([], "lab"))


def test_a_node_that_was_undone_is_not_among_those_that_one_can_enter() -> None:
    (record,) = journal_of([Ip(None, ("netns", "add", "a"), why="make it", owner=NsName("a"))]).records()
    assert "\n#   a\n" in as_script([record], "lab")
    assert "\n#   a\n" not in as_script([evolve(record, undone=True)], "lab")


# ASCII but for one word: dash 0.5.12 loses a byte where a line starts like the end and goes on beyond ASCII.
CONTENTS = st.lists(
    st.sampled_from(["EOF", "EOFF", "EOFFF", "", "'", '"', "$HOME", "`id`", "\\", "a b", "\tx", "é"])
    | st.text(st.characters(max_codepoint=126, exclude_characters="\0\r\n"), max_size=5),
    min_size=1,
    max_size=6,
).map(lambda lines: "\n".join([*lines, "end", ""]))


def test_no_line_of_a_content_ends_it(tmp_path: Path) -> None:
    found: list[tuple[str, str]] = []

    @QUICK
    @given(CONTENTS)
    def collect(content: str) -> None:
        found.append(
            (
                content,
                describe(WriteFile(str(tmp_path / f"{len(found)}"), content, why="", owner=NsName("a"))),
            )
        )

    collect()
    shell(script="".join(text for _, text in found))
    for number, (content, _) in enumerate(found):
        assert (tmp_path / str(number)).read_text(encoding="utf-8") == content


def test_a_replayed_script_writes_files_in_folders_of_nodes(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "c'd" / "hosts"
    shell("-e", script=describe(WriteFile(str(path), "127.0.0.1 localhost\n", why="", owner=NsName("a"))))
    assert path.read_text(encoding="utf-8") == "127.0.0.1 localhost\n"


def test_the_labs_own_names_are_bound_over_etc_and_a_nodes_are_not() -> None:
    address = ip_address("192.0.2.1")
    layout = AddName("own.lab", (address,), "lo").apply(AddName("all.lab", (address,)).apply(ODD_LAB))
    files = [command for command in between(None, layout) if isinstance(command, WriteFile)]
    script = as_script(journal_of(files).records(), "names")
    shell("-n", script=script)
    assert [line for line in plain(script) if line.startswith("mount --bind")] == [
        "mount --bind /run/patchbay/hosts /etc/hosts",
        "mount --bind /run/patchbay/resolv.conf /etc/resolv.conf",
    ]
    assert "cat > /run/patchbay/lo/hosts <<'EOF'" in script


BY_HAND: dict[str, tuple[Command, str]] = {
    "a command of the lab's own namespace": (
        Ip(None, ("netns", "add", "a"), why="", owner=NsName("a")),
        "ip netns add a",
    ),
    "a command of a node": (
        Ip(NsName("a"), ("link", "set", "dev", "née", "up"), why="", owner=NsName("a")),
        "nsenter --net=/run/netns/a ip link set dev 'née' up",
    ),
    "a setting": (
        SetSysctl(NsName("a"), "net/ipv4/ip_forward", "1", why="", owner=NsName("a")),
        "nsenter --net=/run/netns/a sysctl -qw net/ipv4/ip_forward=1",
    ),
    "a setting that need not be there": (
        SetSysctl(NsName("a"), "net/bridge/x", "0", why="", owner=NsName("a"), optional=True),
        "nsenter --net=/run/netns/a sysctl -eqw net/bridge/x=0",
    ),
    "rules": (Nft(NsName("a"), "table", why="", owner=NsName("a")), "nsenter --net=/run/netns/a nft -f -"),
    "a file": (WriteFile("/run/a b", "x", why="", owner=NsName("a")), "tee '/run/a b'"),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_the_line_for_a_shell_of(case: str) -> None:
    command, text = BY_HAND[case]
    assert by_hand(command) == text


def test_each_kind_of_command_says_how_it_was_really_done() -> None:
    assert {case: command.how for case, (command, _) in BY_HAND.items()} == {
        "a command of the lab's own namespace": "as a line of ip -batch -",
        "a command of a node": "as a line of ip -batch -",
        "a setting": "written through /proc/sys",
        "a setting that need not be there": "written through /proc/sys",
        "rules": "in one transaction with those of the namespace around it",
        "a file": "written by the agent",
    }


def test_of_a_node_there_is_what_is_done_for_it_or_in_it() -> None:
    a, b = NsName("a"), NsName("b")
    items: list[Command] = [
        Ip(None, ("netns", "add", "a"), why="make a", owner=a),
        Ip(a, ("link", "set", "dev", "port", "up"), why="start", owner=b),
        Ip(b, ("link", "set", "dev", "lo", "up"), why="start", owner=b),
        Nft(a, "add element", why="load", owner="a#nat"),
    ]
    assert of_node(items, "a") == [items[0], items[1], items[3]]
    assert of_node(items, "b") == [items[1], items[2]]


def test_a_plan_and_its_journal_are_the_same_script() -> None:
    plan = between(None, ODD_LAB)
    assert as_script(list(plan), "odd") == as_script(journal_of(plan).records(), "odd")


def test_what_was_found_done_already_is_a_comment() -> None:
    (record,) = journal_of(
        [Ip(NsName("a"), ("link", "del", "dev", "x"), why="take away", owner="a")]
    ).records()
    script = as_script([evolve(record, stderr="Cannot find device")], "lab")
    assert "\n# found done: nsenter --net=/run/netns/a ip link del dev x\n" in script
    assert plain(script) == plain(as_script([], "lab"))


@QUICK
@given(labs(), st.sampled_from([None, *Addresses]), st.integers(0, 2**32))
def test_the_lines_of_its_changes_give_the_layout_of_a_lab(
    spec: LabSpec, addresses: Addresses | None, seed: int
) -> None:
    spec = evolve(spec, addresses=addresses)
    layout = lay_out(Draft(spec))
    lines = [to_line(Add(spec)), to_line(UseEmulator(Emulator.USERSPACE))]
    layout = UseEmulator(Emulator.USERSPACE).apply(layout)
    for change, _, new in walk(layout, seed):
        lines.append(to_line(change))
        layout = new
    for key in [key for key, wire in layout.wires.items() if not wire.broken][:1]:
        lines.append(to_line(LoseLink(key)))
        layout = LoseLink(key).apply(layout)
    assert layout_after(lines) == layout
    assert layout_after([*lines, lines[-1][:-5]]) == layout
    assert all(line.count("\n") == 1 for line in lines)
