"""Changes made of what users write: names, tables, or values of the model."""

from __future__ import annotations

from functools import cache
from ipaddress import ip_address
from typing import Any, TypeVar

import cattrs

from patchbay.config.converter import Unacceptable, describe_value, make_converter, structure
from patchbay.layout.layout import Address

__all__ = ["made_of"]

ChangeT = TypeVar("ChangeT")


def made_of(kind: type[ChangeT], **fields: Any) -> ChangeT:
    """Return the change with these fields, as users write them.

    Raises `SpecError` with every problem.
    """
    return structure(_converter(), fields, kind)


@cache
def _converter() -> cattrs.Converter:
    made = make_converter()
    made.register_structure_hook_func(lambda kind: kind == Address, _address)
    return made


def _address(value: object, _: object) -> Address:
    try:
        return ip_address(str(value))
    except ValueError:
        raise Unacceptable(f"found {describe_value(value)}; accepted: an IPv4 or IPv6 address") from None
