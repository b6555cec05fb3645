"""How commands become batches, and which of them failed when a batch did.

What `ip` and `nft` say was recorded from iproute2 6.1 and nftables 1.0.6; a test marked `kernel` compares.
"""

import subprocess
from typing import Any

import pytest

from patchbay.execute.apply import Result, _failure, _results
from patchbay.execute.batches import Batch, batches, step
from patchbay.model.names import NsName
from patchbay.tools.commands import CheckQdiscs, Command, EndService, Nft, SetSysctl, StartService, WriteFile
from tests.pure.labs import a_relay
from tests.pure.recordings import A, Recording, ip, results, tc

GONE = ("Cannot find device", "No such process", "No such file or directory")


def service(name: str) -> StartService:
    return StartService(a_relay(name), why="start it", owner=A)


def nft(text: str, ns: NsName = A) -> Nft:
    return Nft(ns, text, why="load rules", owner=A)


def sysctl(ns: str, value: str = "1", optional: bool = False) -> SetSysctl:
    return SetSysctl(NsName(ns), "net/x", value, why="set x", owner=A, optional=optional)


def write(path: str) -> WriteFile:
    return WriteFile(path, "text\n", why="write it", owner=A)


# Grouping

GROUPS: dict[str, list[list[Command]]] = {
    "nothing": [],
    "ip commands of one namespace together": [[ip("a"), ip("b"), ip("c")]],
    "ip commands of several namespaces apart": [[ip("a", ns=A)], [ip("b")], [ip("c", ns=A), ip("d", ns=A)]],
    "rules of one namespace together": [[nft("one"), nft("two")], [nft("three", ns=NsName("b"))]],
    "settings of several namespaces together": [[sysctl("a"), sysctl("b")]],
    "files together": [[write("/x"), write("/y")]],
    "tc commands of one namespace together": [[tc("a"), tc("b")], [tc("c", ns=NsName("b"))]],
    "ip and tc apart": [[ip("a", ns=A)], [tc("a")], [ip("b", ns=A)]],
    "each reading of qdiscs by itself": [
        [CheckQdiscs(A, {}, why="", owner=A)],
        [CheckQdiscs(A, {}, why="", owner=A)],
    ],
    "each service by itself": [
        [service("x")],
        [service("y")],
        [EndService(a_relay("x"), why="", owner=A)],
        [EndService(a_relay("y"), why="", owner=A)],
    ],
    "kinds apart": [[ip("a", ns=A)], [sysctl("a")], [nft("x")], [ip("b", ns=A)]],
}


@pytest.mark.parametrize("case", GROUPS)
def test_batches_hold(case: str) -> None:
    wanted = GROUPS[case]
    found = list(batches([command for group in wanted for command in group]))
    assert [list(batch.commands) for batch in found] == wanted


STEPS: dict[str, tuple[list[Command], list[Any]]] = {
    "ip, which stops at the first error": (
        [ip("netns add a"), ip("netns add b")],
        ["keep", "netns add a\nnetns add b\n"],
    ),
    "ip in a namespace": (
        [ip("link set dev lo up", ns=A)],
        ["exec", "a", ["ip", "-batch", "-"], "link set dev lo up\n"],
    ),
    "ip, which goes on": (
        [ip("link del dev p", GONE), ip("link del dev q")],
        ["try", None, ["ip", "-force", "-batch", "-"], "link del dev p\nlink del dev q\n"],
    ),
    "tc, which stops at the first error": (
        [tc("qdisc replace dev x root netem"), tc("qdisc del dev y root")],
        ["exec", "a", ["tc", "-batch", "-"], "qdisc replace dev x root netem\nqdisc del dev y root\n"],
    ),
    "tc, which goes on": (
        [tc("qdisc del dev x root", GONE), tc("qdisc del dev y root")],
        ["try", "a", ["tc", "-force", "-batch", "-"], "qdisc del dev x root\nqdisc del dev y root\n"],
    ),
    "a reading of qdiscs": (
        [CheckQdiscs(A, {}, why="", owner=A)],
        ["exec", "a", ["tc", "-j", "qdisc", "show"], ""],
    ),
    "nft, as one transaction": (
        [nft("rules\n"), nft("more\nrules\n")],
        ["exec", "a", ["nft", "-f", "-"], "rules\nmore\nrules\n"],
    ),
    "settings": (
        [sysctl("a"), sysctl("b", "2", optional=True)],
        ["sysctl", [["a", "net/x", "1", False], ["b", "net/x", "2", True]]],
    ),
    "files": ([write("/x"), write("/y")], ["write", [["/x", "text\n"], ["/y", "text\n"]]]),
}


@pytest.mark.parametrize("case", STEPS)
def test_the_agent_is_asked_to_run(case: str) -> None:
    commands, told = STEPS[case]
    assert step(Batch(tuple(commands))) == told


# What failed


ANY_PREFIX = "Error: any valid prefix is expected rather than"

RECORDED = {
    "all went well": Recording(("link set dev lo up", "link set dev lo down"), 0, "", (0, 0)),
    "the kernel refuses the third of four": Recording(
        (
            "link set dev lo up",
            "addr add 10.0.0.1/24 dev lo",
            "addr add 10.0.0.1/24 dev lo",
            "link set dev lo up",
        ),
        1,
        "Error: ipv4: Address already assigned.\nCommand failed -:3\n",
        (0, 0, 1, None),
    ),
    "a device is not there": Recording(
        ("link set dev lo up", "link set dev nope up", "link set dev lo up"),
        1,
        'Cannot find device "nope"\nCommand failed -:2\n',
        (0, 1, None),
    ),
    "a namespace is there already": Recording(
        ("netns add b", "netns add c", "netns add b", "netns add d"),
        1,
        'Cannot create namespace file "/run/netns/b": File exists\nCommand failed -:3\n',
        (0, 0, 1, None),
    ),
    "a word that ip cannot read, without a line": Recording(
        ("link set dev lo up", "addr add 10.0.0.999/24 dev lo", "link set dev lo up"),
        1,
        f'{ANY_PREFIX} "10.0.0.999/24".\n',
        (0, 1, None),
    ),
    "a namespace that is not there": Recording(
        ("link set dev lo up", "link add name x netns nope type bridge"),
        255,
        'Error: argument "nope" is wrong: Invalid "netns" value\n\n',
        (0, 255),
    ),
    "a namespace that is not there, after lines with the word netns": Recording(
        ("netns add b", "netns add c", "link add name x netns nope type bridge"),
        255,
        'Error: argument "nope" is wrong: Invalid "netns" value\n\n',
        (0, 0, 255),
    ),
    "an unknown kind of link": Recording(
        ("link add name x type nonsense",),
        1,
        "Error: Unknown device type.\nCommand failed -:1\n",
        (1,),
    ),
    "an unknown object": Recording(
        ("link set dev lo up", "linkk set dev lo up"),
        1,
        'Object "linkk" is unknown, try "ip help".\nCommand failed -:2\n',
        (0, 1),
    ),
    "several tolerated errors": Recording(
        (
            "link del dev p",
            "link set dev lo up",
            "route del 10.0.0.0/8 dev lo",
            "link set dev lo down",
            "netns del nope",
        ),
        1,
        'Cannot find device "p"\nCommand failed -:1\n'
        "RTNETLINK answers: No such process\nCommand failed -:3\n"
        'Cannot remove namespace file "/run/netns/nope": No such file or directory\nCommand failed -:5\n',
        (0, 0, 0, 0, 0),
        GONE,
    ),
    "an error among tolerated ones": Recording(
        (
            "link del dev p",
            "addr add 10.0.0.1/24 dev lo",
            "addr add 10.0.0.1/24 dev lo",
            "link set dev lo up",
        ),
        1,
        'Cannot find device "p"\nCommand failed -:1\n'
        "Error: ipv4: Address already assigned.\nCommand failed -:3\n",
        (0, 0, 1, 0),
        GONE,
    ),
    "a word that ip cannot read, in a batch that goes on": Recording(
        ("route del 10.0.0.0/99 dev lo", "netns add c"),
        1,
        f'{ANY_PREFIX} "10.0.0.0/99".\n',
        (1, None),
        GONE,
    ),
    "a word that ip cannot read, after a tolerated error": Recording(
        ("link del dev p", "route del 10.0.0.0/99 dev lo", "netns add c"),
        1,
        f'Cannot find device "p"\nCommand failed -:1\n{ANY_PREFIX} "10.0.0.0/99".\n',
        (0, 1, None),
        GONE,
    ),
}


@pytest.mark.parametrize("case", RECORDED)
def test_the_output_of_ip_names_the_failed_line(case: str) -> None:
    recording = RECORDED[case]
    assert results(recording) == list(recording.results)


@pytest.mark.kernel
@pytest.mark.parametrize("case", RECORDED)
def test_ip_still_says_what_was_recorded(case: str) -> None:
    recording = RECORDED[case]
    options = "-force " if recording.tolerate else ""
    done = subprocess.run(
        ["unshare", "-rmn", "sh", "-c", f"mount -t tmpfs tmpfs /run && exec ip {options}-batch -"],
        input="".join(f"{line}\n" for line in recording.lines),
        env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (recording.status, recording.stderr)


def test_of_a_batch_that_was_killed_the_rest_was_not_run() -> None:
    lines = ("link del dev p", "link del dev q", "link del dev r")
    said = 'Cannot find device "p"\nCommand failed -:1\n'
    assert results(Recording(lines, -9, said, (), GONE)) == [0, -9, None]
    assert results(Recording(lines, -9, "", (), GONE)) == [-9, None, None]


def test_of_settings_and_files_the_agent_tells_how_many_it_did() -> None:
    for commands in ((sysctl("a"), sysctl("b"), sysctl("c")), (write("/x"), write("/y"), write("/z"))):
        raw = {"status": 1, "err": "No such file or directory: net/x", "out": "1"}
        told = _results(Batch(commands), raw)
        assert [result.status if result else None for result in told] == [0, 1, None]
        assert told[1] and told[1].stderr == "No such file or directory: net/x"


RULES = (
    "table inet x {\n\tchain a {\n\t\ttype nat hook postrouting priority srcnat;\n\t\tsnat ip too x\n\t}\n}\n"
)
NFT_SAID = {
    "a line that it cannot read": (
        RULES,
        "/dev/stdin:4:3-6: Error: ip or ip6 must be specified with address for inet tables.\n"
        "\t\tsnat ip too x\n\t\t^^^^\n",
        "  input      line 4: snat ip too x\n",
        "",
    ),
    "a line that the kernel refuses": (
        "add rule inet nope nada accept\n",
        "/dev/stdin:1:15-18: Error: Could not process rule: No such file or directory\n"
        "add rule inet nope nada accept\n              ^^^^\n",
        "  input      line 1: add rule inet nope nada accept\n",
        "the kernel lacks a part of nftables; `patchbay doctor` lists what else",
    ),
    "no line at all": (
        RULES,
        "netlink: Error: cache initialization failed: Message too long\n",
        "",
        "the ruleset is larger than a user namespace's send buffer takes at once",
    ),
}


@pytest.mark.parametrize("case", NFT_SAID)
def test_a_ruleset_that_fails_is_reported_with(case: str) -> None:
    text, stderr, shown, hint = NFT_SAID[case]
    batch = Batch((nft(text),))
    (result,) = _results(batch, {"status": 1, "err": stderr, "out": ""})
    assert result
    error = _failure(batch, 0, result)
    said = stderr.strip().replace("\n", "\n             ")
    assert str(error) == (
        "could not load rules: nft exited 1\n"
        "  namespace  a\n"
        "  command    nft -f -\n"
        f"{shown}"
        f"  stderr     {said}\n"
        "  repeat     nsenter --net=/run/netns/a nft -f -" + (f"\n  hint       {hint}" if hint else "")
    )


def test_a_ruleset_that_ends_too_early_is_reported_too() -> None:
    text = "table inet x {\n"
    stderr = "/dev/stdin:2:1-1: Error: syntax error, unexpected end of file\ntable inet x {\n^\n"
    batch = Batch((nft(text),))
    (result,) = _results(batch, {"status": 1, "err": stderr, "out": ""})
    assert result
    assert "unexpected end of file" in str(_failure(batch, 0, result))


# Three commands of one transaction, each a table of its own and a rule; the middle one has 3 lines.
TOGETHER = (nft("table inet a\n"), nft("table inet b\nadd chain inet b c\nbad\n"), nft("table inet d\n"))


@pytest.mark.parametrize(
    ("line", "failed", "shown"),
    [
        (1, 0, "line 1: table inet a"),
        (2, 1, "line 1: table inet b"),
        (4, 1, "line 3: bad"),
        (5, 2, "line 1: table inet d"),
        (6, 2, "line 2: (the end)"),
    ],
    ids=["the first line", "the second's first", "the second's last", "the last line", "the end"],
)
def test_of_several_rulesets_the_one_that_failed_is_reported_with_its_own_line(
    line: int, failed: int, shown: str
) -> None:
    batch = Batch(TOGETHER)
    stderr = f"/dev/stdin:{line}:1-3: Error: syntax error\nbad\n^^^\n"
    found = _results(batch, {"status": 1, "err": stderr, "out": ""})
    # Of a transaction that failed nothing was done, also of what stands before the failure.
    assert [result.status if result else None for result in found] == [
        1 if number == failed else None for number in range(3)
    ]
    assert f"  input      {shown}\n" in str(_failure(batch, failed, Result(1, stderr)))


@pytest.mark.kernel
def test_nft_counts_the_lines_of_a_whole_transaction_and_does_nothing_of_one_that_failed() -> None:
    texts = ("table inet a {\n}\n", "table inet b {\n}\nadd rule inet b nope accept\n", "table inet c\n")
    batch = Batch(tuple(map(nft, texts)))
    told = step(batch)[3]
    done = subprocess.run(
        ["unshare", "-rn", "sh", "-c", "LC_ALL=C nft -f -; nft list tables"],
        input=told,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    found = _results(batch, {"status": 1, "err": done.stderr, "out": ""})
    assert [result is not None for result in found] == [False, True, False]
    assert found[1]
    assert "  input      line 3: add rule inet b nope accept\n" in str(_failure(batch, 1, found[1]))


def test_an_ip_command_that_fails_is_reported_with_its_line_and_how_to_repeat_it() -> None:
    batch = Batch((ip("link set dev lo up"), ip("link add name x type nonsense")))
    raw = {"status": 1, "err": "Error: Unknown device type.\nCommand failed -:2\n", "out": ""}
    failed = _results(batch, raw)[1]
    assert failed
    assert str(_failure(batch, 1, failed)) == (
        "could not do link add name x type nonsense: ip exited 1\n"
        "  namespace  (the lab's own)\n"
        "  command    ip link add name x type nonsense\n"
        "  input      line 2: link add name x type nonsense\n"
        "  stderr     Error: Unknown device type.\n"
        "             Command failed -:2\n"
        "  repeat     ip link add name x type nonsense\n"
        "  hint       the kernel lacks this kind of link; `patchbay doctor` lists what else"
    )


def test_a_setting_that_fails_is_reported_without_a_line() -> None:
    batch = Batch((sysctl("a"),))
    (failed,) = _results(batch, {"status": 1, "err": "", "out": "0"})
    assert failed
    assert str(_failure(batch, 0, failed)) == (
        "could not set x: sysctl exited 1\n"
        "  namespace  a\n"
        "  command    sysctl -qw net/x=1\n"
        "  stderr     (nothing)\n"
        "  repeat     nsenter --net=/run/netns/a sysctl -qw net/x=1"
    )


def test_what_is_too_long_for_one_transaction_goes_in_several_with_the_rules_first() -> None:
    rules = Nft(A, "table inet nat {\n}\n", why="load rules", owner=A)
    elements = [
        Nft(A, f"add element inet nat page {{ {each:0500} }}\n", why="add", owner=A) for each in range(300)
    ]
    first, *others = batches([rules, *elements])
    assert first.commands[0] == rules
    assert [command for batch in (first, *others) for command in batch.commands] == [rules, *elements]
    # 208 KiB is what a user namespace may send at once by default, and an element is four times its text.
    assert all(4 * sum(len(c.stdin) for c in batch.commands) <= 208 * 1024 for batch in (first, *others))
    assert len(others) < 4
