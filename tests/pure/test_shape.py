"""Room for delayed packets, bucket and buffer, computed by hand."""

import pytest

from patchbay.model.link import Impairment, Trace
from patchbay.plan.shape import Shape, shape_of

# Frames of 1514 bytes. Without a rate 826,000 packets a second may come; with one, frames of 64 bytes.
SHAPES = {
    "nothing to wait for": (Impairment(loss_pct=1), None, Shape(1000)),
    # 0.025 s * 826,000 = 20,650
    "latency alone": (Impairment(25), None, Shape(21_650)),
    # 0.033 s * 826,000 = 27,258
    "latency and jitter": (Impairment(25, 8), None, Shape(28_258)),
    # 20 Mbit/s are 2,500 bytes a ms: 2 ms of them pass at once, 100 ms of them may wait.
    "a rate alone": (Impairment(rate_kbit=20_000), None, Shape(1000, 5_000, 250_000)),
    # 20 Mbit/s are 39,062.5 frames of 64 bytes a second, of which 0.05 s make 1,953.125
    "less latency than 100 ms": (Impairment(50, rate_kbit=20_000), None, Shape(2_954, 5_000, 250_000)),
    # 0.3 s of them make 11,718.75; in 300 ms the rate sends 750,000 bytes.
    "more latency than 100 ms": (Impairment(300, rate_kbit=20_000), None, Shape(12_719, 5_000, 750_000)),
    # 2 Mbit/s are 500 bytes in 2 ms, less than two frames; 3,906.25 frames a second, 195.3 in 50 ms
    "a buffer of one's own": (
        Impairment(40, 10, rate_kbit=2_000, buffer_kb=64),
        None,
        Shape(1_196, 3_028, 64_000),
    ),
    "a buffer below two frames": (Impairment(rate_kbit=2_000, buffer_kb=2), None, Shape(1000, 3_028, 3_028)),
    # 12 kbit/s are 150 bytes in 100 ms.
    "the least rate": (Impairment(rate_kbit=12), None, Shape(1000, 3_028, 3_028)),
    # 1 Mbit/s are 12,500 bytes in 100 ms, less than two frames of 9014.
    "large frames": (Impairment(rate_kbit=1_000), 9000, Shape(1000, 18_028, 18_028)),
    # 100 Gbit/s are more than 826,000 packets a second, of which 0.01 s make 8,260
    "a rate beyond all packets": (
        Impairment(10, rate_kbit=100_000_000),
        None,
        Shape(9_260, 25_000_000, 1_250_000_000),
    ),
    # As a rate of 8 Mbit/s: 1,000 bytes a ms; 15,625 frames a second, of which 0.02 s make 312.5
    "a trace": (Impairment(20, trace=Trace("/t", 8_000)), None, Shape(1_313, 3_028, 100_000)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_a_direction_has_the_shape_of(case: str) -> None:
    impairment, mtu, shape = SHAPES[case]
    assert shape_of(impairment, mtu) == shape
