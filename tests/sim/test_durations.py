import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay.config.converter import Unacceptable
from patchbay.sim.spec.durations import in_words, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("2m", 120),
        ("1h", 3600),
        ("1m30s", 90),
        ("1h0m5s250ms", 3605.25),
        ("0.5s", 0.5),
    ],
)
def test_a_duration_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value", ["", "30", "s", "30 s", "30s ", "1s1m", "1m1m", "-1s", "1.s", "3 min", 30, 1.5, None, True]
)
def test_nothing_else_is_a_duration(value: object) -> None:
    with pytest.raises(Unacceptable, match="accepted: a duration such as"):
        parse_duration(value)


@given(st.integers(0, 10**8))
def test_what_is_written_is_read_back(milliseconds: int) -> None:
    assert parse_duration(in_words(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


def test_a_duration_is_written_without_parts_that_are_zero() -> None:
    assert [in_words(s) for s in (0, 0.25, 90, 3600)] == ["0s", "250ms", "1m30s", "1h"]
