"""Which of the lines of `tc -batch -` failed when it did, from what a real one said."""

import pytest

from patchbay.execute.apply import _failure, _results
from patchbay.execute.batches import Batch
from patchbay.plan.resources import GONE
from tests.pure.recordings import Recording, results, tc

TBF = "tbf rate 1000000bit burst 5000 limit 255000"

# Of iproute2 6.1 on Linux 6.1, with an interface x.
RECORDED = {
    "an interface is not there": Recording(
        (
            "qdisc replace dev x root handle 1: netem delay 5ms",
            "qdisc replace dev nope root handle 1: netem",
            "qdisc del dev x root",
        ),
        1,
        'Cannot find device "nope"\nCommand failed -:2\n',
        (0, 1, None),
    ),
    "all is gone already": Recording(
        (
            "qdisc del dev x parent 1:1",
            "qdisc del dev x root",
            "qdisc del dev x root",
            "qdisc del dev x parent 1:1",
            "qdisc del dev nope root",
        ),
        1,
        "Error: Cannot find specified qdisc on specified device.\nCommand failed -:1\n"
        "Error: Cannot delete qdisc with handle of zero.\nCommand failed -:3\n"
        "Error: Failed to find qdisc with specified classid.\nCommand failed -:4\n"
        'Cannot find device "nope"\nCommand failed -:5\n',
        (0, 0, 0, 0, 0),
        GONE,
    ),
    "a bucket below nothing, which nothing excuses": Recording(
        (f"qdisc replace dev x parent 1:1 handle 10: {TBF}",),
        1,
        "Error: Failed to find specified qdisc.\nCommand failed -:1\n",
        (1,),
    ),
    "a word that it cannot read": Recording(
        (
            "qdisc replace dev x root handle 1: netem delay 5ms",
            "qdisc replace dev x root handle 1: netem delay 5xs",
            "qdisc del dev x root",
        ),
        1,
        'Illegal "latency"\nCommand failed -:2\n',
        (0, 1, None),
    ),
    "a kernel without netem": Recording(
        ("qdisc replace dev x root handle 1: netem delay 5ms",),
        1,
        "Error: Specified qdisc kind is unknown.\nCommand failed -:1\n",
        (1,),
    ),
}


@pytest.mark.parametrize("case", RECORDED)
def test_the_output_of_tc_names_the_failed_line(case: str) -> None:
    recording = RECORDED[case]
    assert results(recording, tc) == list(recording.results)


def test_without_netem_the_error_names_the_other_emulator() -> None:
    recording = RECORDED["a kernel without netem"]
    batch = Batch((tc(recording.lines[0]),))
    (result,) = _results(batch, {"status": 1, "err": recording.stderr, "out": ""})
    assert result
    assert _failure(batch, 0, result).hint == (
        "the kernel has no sch_netem: open the lab with emulator='userspace' or 'auto'"
    )
