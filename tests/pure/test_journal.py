"""The journal: what it keeps of a lab's commands, and what of them made the lab what it is."""

import json
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from patchbay.execute.apply import Outcome, Result
from patchbay.execute.batches import Batch
from patchbay.layout.allocate import empty_layout, extend
from patchbay.model.lab import LabSpec
from patchbay.plan.change import between
from patchbay.record.journal import Journal, Record, final_state, read_records, to_line
from patchbay.record.trace import as_json, select
from patchbay.tools.commands import Ip, Nft, SetSysctl, WriteFile
from tests.pure.fake_kernel import Kernel
from tests.pure.journals import command_of, journal_of, outcomes
from tests.pure.labs import QUICK, labs, one_by_one


def made(node: str) -> Ip:
    return Ip(None, ("netns", "add", node), f"make {node}", node)


def gone(node: str) -> Ip:
    return Ip(None, ("netns", "del", node), f"take {node} away", node)


def link(ns: str, name: str, owner: str | None = None) -> Ip:
    return Ip(ns, ("link", "set", "dev", name, "up"), "start", owner or ns)


def words(records: list[Record]) -> list[str]:
    return [" ".join(record.argv) for record in records]


def test_each_command_is_a_record_of_its_own_with_the_batch_it_ran_in() -> None:
    commands = (made("a"), link("a", "lo"), link("a", "wan"), Nft("a", "table inet x {\n}\n", "load", "a"))
    records = journal_of(commands).records()
    assert [record.seq for record in records] == [1, 2, 3, 4]
    assert [record.batch for record in records] == [1, 2, 2, 3]
    assert [record.ns for record in records] == [None, "a", "a", "a"]
    assert [record.argv for record in records] == [command.argv for command in commands]
    assert [record.tool for record in records] == ["ip", "ip", "ip", "nft"]
    assert [record.input for record in records] == ["", "", "", "table inet x {\n}\n"]
    assert {record.status for record in records} == {0}
    assert {record.change for record in records} == {0}


def test_numbers_go_on_from_one_change_to_the_next() -> None:
    journal = Journal()
    journal.add(outcomes([made("a"), link("a", "lo")]), undone=False)
    first = journal.records()
    journal.add(outcomes([]), undone=False)
    journal.add(outcomes([made("b")]), undone=True)
    records = journal.records()
    assert records[:2] == first
    assert [(record.seq, record.batch, record.change, record.undone) for record in records] == [
        (1, 1, 0, False),
        (2, 2, 0, False),
        (3, 3, 2, True),
    ]
    assert journal.records() == records


def test_the_records_of_a_change_stand_in_the_order_in_which_they_were_begun() -> None:
    late, early = outcomes([made("b")], start=5.0), outcomes([made("a")], start=3.0)
    journal = Journal()
    journal.add([*late, *early], undone=False)
    assert words(list(journal.records())) == ["ip netns add a", "ip netns add b"]


def test_a_command_that_was_not_run_has_no_status() -> None:
    batch = Batch((made("a"), made("b"), made("c")))
    journal = Journal()
    journal.add([Outcome(batch, 1.0, 0.1, (Result(0), Result(2, "File exists"), None))], undone=True)
    assert [(record.status, record.stderr) for record in journal.records()] == [
        (0, ""),
        (2, "File exists"),
        (None, ""),
    ]


OWNER = "a#nat"
RULES = Nft("a", "first", "load", OWNER)
DROPPED = Nft("a", "delete", "take away", OWNER, ends=OWNER)
BLOCK = Nft("a", "add element", "give ports", OWNER, slot="block 10.0.0.2")
NO_BLOCK = evolve(BLOCK, ruleset="delete element")

# Commands, each list a change; and those that made what is there in the end.
FINAL = {
    "of what failed, nothing": ([[made("a")]], {"status": 1}, []),
    "of what was not run, nothing": ([[made("a")]], {"status": None}, []),
    "of what was undone, nothing": ([[made("a")]], {"undone": True}, []),
    "of a node that was removed, nothing": (
        [[made("a"), made("b"), link("a", "lo")], [gone("a")]],
        {},
        ["ip netns add b"],
    ),
    "also what was done elsewhere for it": (
        [[made("a"), made("b"), link("a", "port", owner="b")], [gone("b")]],
        {},
        ["ip netns add a"],
    ),
    "of a node that came back, what was done since": (
        [[made("a"), link("a", "one")], [gone("a")], [made("a"), link("a", "two")]],
        {},
        ["ip netns add a", "ip link set dev two up"],
    ),
    "of what nobody owns any more, nothing": ([[link("a", "lo")]], {}, []),
    "of a table that was dropped, nothing": ([[made("a"), RULES, BLOCK], [DROPPED]], {}, ["ip netns add a"]),
    "of a table that was dropped, only its own": (
        [[made("a"), RULES, evolve(RULES, owner="a#filter")], [DROPPED]],
        {},
        ["ip netns add a", "nft -f -"],
    ),
    "of a namespace, nothing of the tables in it either": ([[made("a"), RULES, BLOCK], [gone("a")]], {}, []),
    "of a setting, the last; of another, its own": (
        [
            [made("a"), SetSysctl("a", "net/x", "1", "", "a"), SetSysctl("a", "net/y", "1", "", "a")],
            [SetSysctl("a", "net/x", "2", "", "a")],
        ],
        {},
        ["ip netns add a", "sysctl -qw net/y=1", "sysctl -qw net/x=2"],
    ),
    "of a file, the last": (
        [[made("a"), WriteFile("/run/x", "1", "", "a")], [WriteFile("/run/x", "2", "", "a")]],
        {},
        ["ip netns add a", "tee /run/x"],
    ),
}


@pytest.mark.parametrize("case", FINAL)
def test_the_final_state_holds(case: str) -> None:
    changes, evolved, expected = FINAL[case]
    records = [evolve(record, **evolved) for record in journal_of(*changes).records()]
    assert words(final_state(records)) == expected


RULESETS = {
    "the last that was loaded": ([[RULES], [DROPPED, evolve(RULES, ruleset="second")]], ["second"]),
    "elements after it in their order": (
        [[RULES, BLOCK], [DROPPED, RULES, BLOCK, evolve(BLOCK, slot="block 10.0.0.3", ruleset="other")]],
        ["first", "add element", "other"],
    ),
    "in the place of what was taken back, what did that": (
        [[RULES, BLOCK], [NO_BLOCK]],
        ["first", "delete element"],
    ),
    "what was given again": ([[RULES, BLOCK], [NO_BLOCK], [BLOCK]], ["first", "add element"]),
}


@pytest.mark.parametrize("case", RULESETS)
def test_of_rules_there_stands(case: str) -> None:
    changes, expected = RULESETS[case]
    records = journal_of([made("a")], *changes).records()
    assert [record.input for record in final_state(records) if record.input] == expected


@QUICK
@given(labs(), st.integers(0, 2**32))
def test_what_the_final_state_says_builds_the_same_lab_anew(spec: LabSpec, seed: int) -> None:
    """After a history of additions that stood, additions that failed, and removals."""
    rng = Random(seed)
    layouts = one_by_one(spec)
    journal = journal_of(between(None, layouts[0]))
    for old, new in pairwise(layouts):
        there, back = between(old, new), between(new, old)
        if rng.random() < 0.5:
            journal.add(outcomes([*there, *back]), undone=True)
        if rng.random() < 0.5:
            journal.add(outcomes(there), undone=False)
            journal.add(outcomes(back), undone=False)
        journal.add(outcomes(there), undone=False)
    replayed, expected = Kernel(), Kernel()
    replayed.run(map(command_of, final_state(journal.records())))
    expected.run(between(None, layouts[-1]))
    assert replayed.namespaces == expected.namespaces


ODD = Record(
    seq=1,
    time=1.5,
    ns=None,
    why="tell 'café' of \"it\"\u2028",
    tool="tee",
    argv=("tee", "/run/a b"),
    input="one\ntwo\n",
    status=None,
    elapsed=0.25,
    stderr="\ufffd \x1b[31m",
    batch=2,
    how="",
    owner="a",
    slot="file",
    change=3,
    undone=True,
)


def test_records_are_read_back_as_they_were_written() -> None:
    records = [ODD, evolve(ODD, seq=2, ns="a", status=0, undone=False)]
    assert read_records(map(to_line, records)) == records


@QUICK
@given(labs())
def test_every_record_of_a_plan_is_one_line(spec: LabSpec) -> None:
    records = journal_of(between(None, extend(empty_layout(), spec))).records()
    lines = [to_line(record) for record in records]
    assert all(line.count("\n") == 1 and line.endswith("\n") for line in lines)
    assert tuple(read_records(lines)) == records


def test_a_line_that_is_still_being_written_is_left_for_later() -> None:
    whole, half = to_line(ODD), to_line(ODD)[:-20]
    assert read_records([whole, half]) == [ODD]
    assert read_records([to_line(ODD)[:-1]]) == []
    assert read_records([]) == []


def test_records_may_be_those_of_one_node_of_the_present_or_of_all_that_was() -> None:
    records = journal_of(
        [made("a"), made("b"), link("a", "port", owner="b"), link("a", "lo")], [gone("b")]
    ).records()

    def chosen(**options: Any) -> list[int]:
        return [record.seq for record in select(records, **options)]

    assert chosen(everything=True) == [1, 2, 3, 4, 5]
    assert chosen(everything=False) == [1, 4]
    assert chosen(everything=True, node_ns="a") == [1, 3, 4]
    assert chosen(everything=True, node_ns="b") == [2, 3, 5]
    assert chosen(everything=False, node_ns="b") == []


def test_records_as_json_are_an_array_of_the_same_tables() -> None:
    (table,) = json.loads(as_json([ODD]))
    assert table == json.loads(to_line(ODD))
    assert table["argv"] == ["tee", "/run/a b"]
