"""Copies of fake kernels, which tests change side by side."""

import copy
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from attrs import evolve

from patchbay.model.link import Emulator
from patchbay.plan.change import between
from tests.pure.fake_kernel import Kernel
from tests.pure.labs import layout_of
from tests.pure.nft_text import TextTable

LAB = """
[region.eu]
latencies = { us = 40 }
[region.us]
[[router]]
name = "r"
region = "eu"
nat = { port_allocation = "block:64" }
[device.d.eth0]
gateway = "r"
link = "mobile-3g"
"""


def kernel_with(emulator: Emulator) -> Kernel:
    kernel = Kernel()
    kernel.run(between(None, evolve(layout_of(LAB), emulator=emulator)))
    return kernel


def changeable(value: object) -> Iterator[object]:
    """The objects in a kernel that commands change. A table is replaced as a whole."""
    if isinstance(value, TextTable):
        return
    inside: list[object] = []
    kind: type[Any] = type(value)
    if attrs.has(kind):
        inside = [getattr(value, field.name) for field in attrs.fields(kind)]
    elif isinstance(value, dict):
        inside = [*value.values()]
    elif not isinstance(value, list | set):
        return
    yield value
    for each in inside:
        yield from changeable(each)


@pytest.mark.parametrize("emulator", [Emulator.NETEM, Emulator.USERSPACE])
def test_a_copy_equals_its_kernel_and_shares_nothing_that_changes(emulator: Emulator) -> None:
    kernel = kernel_with(emulator)
    other = kernel.copy()
    assert other == kernel == copy.deepcopy(kernel)
    mine, others = list(changeable(kernel)), list(changeable(other))
    assert len(mine) == len(others) > 50
    assert {id(each) for each in mine}.isdisjoint(id(each) for each in others)


def test_a_copy_may_change_while_its_kernel_stays() -> None:
    kernel, layout = kernel_with(Emulator.NETEM), evolve(layout_of(LAB), emulator=Emulator.NETEM)
    before = copy.deepcopy(kernel)
    other = kernel.copy()
    other.run(between(layout, layout_of("")))
    assert other.namespaces.keys() == {"ix"} and kernel == before


def test_elements_are_added_to_the_table_of_one_kernel_alone() -> None:
    text = "table inet nat {\n\tset page {\n\t\ttype ipv4_addr\n\t}\n}\n"
    one, other = Kernel(), Kernel()
    for kernel in (one, other):
        kernel._netns_add(["r"])
        kernel._nft(kernel.namespaces["r"], text)
    one._nft(one.namespaces["r"], "add element inet nat page { 192.0.2.1 }\n")
    assert one.namespaces["r"].tables["nat"].elements == {"page": {"192.0.2.1": ""}}
    assert other.namespaces["r"].tables["nat"].elements == {}
