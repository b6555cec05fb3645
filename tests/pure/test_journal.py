"""The journal: what it keeps of a lab's commands, and what of them made the lab what it is."""

import json

from attrs import evolve
from hypothesis import given

from patchbay.execute.apply import Outcome, Result
from patchbay.execute.batches import Batch
from patchbay.layout.allocate import empty_layout, extend
from patchbay.model.lab import LabSpec
from patchbay.model.names import NsName
from patchbay.plan.change import between
from patchbay.record.journal import Journal, Record, read_records, to_line
from patchbay.record.trace import as_json
from patchbay.tools.commands import Ip, Nft
from tests.pure.journals import journal_of, outcomes
from tests.pure.labs import QUICK, labs

A = NsName("a")


def made(node: str) -> Ip:
    return Ip(None, ("netns", "add", node), why=f"make {node}", owner=node)


def gone(node: str) -> Ip:
    return Ip(None, ("netns", "del", node), why=f"take {node} away", owner=node)


def link(ns: str, name: str, owner: str | None = None) -> Ip:
    return Ip(NsName(ns), ("link", "set", "dev", name, "up"), why="start", owner=owner or ns)


def words(records: list[Record]) -> list[str]:
    return [" ".join(record.argv) for record in records]


def test_each_command_is_a_record_of_its_own_with_the_batch_it_ran_in() -> None:
    commands = (
        made("a"),
        link("a", "lo"),
        link("a", "wan"),
        Nft(A, "table inet x {\n}\n", why="load", owner="a"),
    )
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


def test_the_records_of_a_change_are_in_the_order_in_which_they_began() -> None:
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


def test_records_as_json_are_an_array_of_the_same_tables() -> None:
    (table,) = json.loads(as_json([ODD]))
    assert table == json.loads(to_line(ODD))
    assert table["argv"] == ["tee", "/run/a b"]
