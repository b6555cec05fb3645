"""Durations as users write them: "500ms", "30s", "2m", "1h", "1m30s"."""

from __future__ import annotations

import re
from typing import NewType

from patchbay.config.converter import Unacceptable, describe_value

__all__ = ["Seconds", "in_words", "parse_duration"]

Seconds = NewType("Seconds", float)

_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?")
_WORTH = (3600.0, 60.0, 1.0, 0.001)


def parse_duration(value: object) -> Seconds:
    """Return a duration in seconds. Raises `Unacceptable` for anything but such a string."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if match is None:
        raise Unacceptable(
            f'found {describe_value(value)}; accepted: a duration such as "500ms", "30s", "2m", "1m30s"'
        )
    amounts = (float(amount or 0) for amount in match.groups())
    return Seconds(sum(amount * worth for amount, worth in zip(amounts, _WORTH, strict=True)))


def in_words(seconds: float) -> str:
    """Return a duration as a user would write it, to the millisecond: 90.0 is "1m30s"."""
    left = round(seconds * 1000)
    text = ""
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        amount, left = divmod(left, size)
        text += f"{amount}{unit}" if amount else ""
    return text or "0s"
