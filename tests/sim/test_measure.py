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


def test_what_is_missing_or_no_number_is_left_out_and_told() -> None:
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
