import pytest

from patchbay.config.converter import Unacceptable
from patchbay.sim.spec.asserts import Check, NotANumber, Op, holds, parse_check
from patchbay.sim.spec.refs import Ref


@pytest.mark.parametrize(
    ("text", "seen", "true"),
    [
        ("a.b == x", "x", True),
        ("a.b == x", "x ", False),
        ("a.b == 0", "0.0", False),
        ("a.b != x", "y", True),
        ("a.b != x", "x", False),
        ("a.b contains Direct", "NotDirectly", True),
        ("a.b contains direct", "Direct", False),
        ("a.b matches ^[0-9]+$", "123", True),
        ("a.b matches [0-9]", "x1", True),
        ("a.b matches ^[0-9]+$", "12a", False),
        ("a.b < 10", "9", True),
        ("a.b < 10", "10", False),
        ("a.b <= 10", "10.0", True),
        ("a.b > 1e3", "1001", True),
        ("a.b >= 0.3", ".3", True),
        ("a.b >= -1", "-1.5", False),
        ("a.b > 9007199254740992", "9007199254740993", True),
    ],
)
def test_an_assertion_holds_or_not(text: str, seen: str, true: bool) -> None:
    assert holds(parse_check(text), seen) is true


@pytest.mark.parametrize("seen", ["", "abc", "12ms", "nan", "inf", "1_000", "0x10", "\u0661"])
@pytest.mark.parametrize("op", ["<", "<=", ">", ">="])
def test_numbers_are_compared_with_nothing_else(op: str, seen: str) -> None:
    with pytest.raises(NotANumber, match="is not a number"):
        holds(parse_check(f"a.b {op} 5"), seen)


def test_an_assertion_is_read_as_written() -> None:
    check = parse_check("  conn.kind   contains   two words ")
    assert check == Check(Ref("conn", "kind"), Op.CONTAINS, "two words")
    assert str(check) == "conn.kind contains two words"
    assert parse_check("a.b ==") == Check(Ref("a", "b"), Op.EQUAL, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found ''; accepted: id.capture OP value, OP one of == != contains matches < <= > >="),
        ("a.b", "found 'a.b'; accepted: id.capture OP value"),
        ("a.b ~ 3", "found 'a.b ~ 3'; accepted: id.capture OP value"),
        ("a.b>3", "found 'a.b>3'; accepted: id.capture OP value"),
        ("a == 3", "found 'a'; accepted: id.capture"),
        ("a.b.c == 3", "found 'a.b.c'; accepted: id.capture"),
        ("a.b matches (", r"found '\(', which is no regular expression"),
        ("a.b < ten", "found 'ten' behind '<'; accepted: a number"),
    ],
)
def test_a_text_that_is_no_assertion_is_refused(text: str, message: str) -> None:
    with pytest.raises(Unacceptable, match=message):
        parse_check(text)
