import pytest

from patchbay.report.results import _words
from patchbay.sim.spec.results import Measured, Results, measure

SEEN = {".s": "1.5", ".us": "2500000", ".bytes": "1000", ".rate": "1e3", ".kind": "direct", ".big": "1e999"}


def test_results_are_numbers() -> None:
    results = Results(up_bytes=".bytes", down_bytes=".rate", latency_ms=".s")
    assert measure(results, SEEN.get) == (Measured(up_bytes=1000, down_bytes=1000.0, latency_ms=1.5), [])


def test_a_duration_is_seconds_with_a_fraction_and_microseconds_without() -> None:
    assert measure(Results(duration=".s"), SEEN.get)[0].duration == 1.5
    assert measure(Results(duration=".us"), SEEN.get)[0].duration == 2.5


def test_metrics_of_ones_own_may_be_texts() -> None:
    measured, faults = measure(Results(metrics={"kind": ".kind", "n": ".bytes"}), SEEN.get)
    assert (measured.metrics, faults) == ({"kind": "direct", "n": 1000}, [])


def test_a_missing_result_and_one_that_is_no_number_are_left_out_and_reported() -> None:
    measured, faults = measure(
        Results(duration=".no", latency_ms=".kind", up_bytes=".big", metrics={"m": ".no"}), SEEN.get
    )
    assert measured == Measured()
    assert faults == [
        "results.duration: nothing was captured as '.no'",
        "results.up_bytes: '.big' is '1e999', which is not a number",
        "results.latency_ms: '.kind' is 'direct', which is not a number",
        "results.metrics.m: nothing was captured as '.no'",
    ]


@pytest.mark.parametrize(
    ("bytes_in_a_second", "words"),
    [
        (0, "0 B, 0 bit/s"),
        (20, "20 B, 160 bit/s"),
        (2_500_000, "2.50 MB, 20.0 Mbit/s"),
        (124_950_000, "125 MB, 1.00 Gbit/s"),
        (125_000_000_000, "125 GB, 1.00 Tbit/s"),
        (10**16, "10000 TB, 80000 Tbit/s"),
    ],
)
def test_amounts_have_three_digits_and_a_unit_that_fits(bytes_in_a_second: int, words: str) -> None:
    assert f"up {words}, in 1.00 s" in ", ".join(_words(Measured(up_bytes=bytes_in_a_second, duration=1)))


def test_numbers_are_written_without_an_exponent() -> None:
    measured = Measured(latency_ms=0.25, metrics={"a": 1_000_000, "b": 123_456_789.5, "c": 0.5, "d": "x"})
    words = ["latency 0.25 ms", "a 1000000", "b 123456790", "c 0.5", "d x"]
    assert list(_words(measured)) == words
