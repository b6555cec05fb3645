"""Telling NATs apart: a STUN server, a classifier, and what theory says must be found."""

from patchbay.testing.classify import classify_nat
from patchbay.testing.report import NatReport
from patchbay.testing.server import StunServers, serve_stun
from patchbay.testing.theory import Expectation, connects, differences, matrix, predict

__all__ = [
    "Expectation",
    "NatReport",
    "StunServers",
    "classify_nat",
    "connects",
    "differences",
    "matrix",
    "predict",
    "serve_stun",
]
