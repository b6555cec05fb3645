"""The collector waits while large plans are in memory, and is as it was afterwards."""

import gc
from collections.abc import Iterator

import pytest

from patchbay.lab.garbage import collection_paused


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_in_the_block_nor_in_blocks_that_overlap() -> None:
    first, second = collection_paused(), collection_paused()
    with first:
        assert not gc.isenabled()
        second.__enter__()
    assert not gc.isenabled()
    second.__exit__(None, None, None)
    assert gc.isenabled()


def test_a_block_that_fails_lets_the_collector_go_on() -> None:
    with pytest.raises(LookupError), collection_paused():
        raise LookupError
    assert gc.isenabled()


def test_a_collector_that_was_switched_off_stays_off() -> None:
    gc.disable()
    with collection_paused():
        pass
    assert not gc.isenabled()


def test_what_was_made_in_the_block_is_not_young_afterwards() -> None:
    with collection_paused():
        made = [[number] for number in range(5000)]
    assert len(gc.get_objects(generation=0)) < len(made)
    assert gc.get_freeze_count() == 0


def test_objects_that_the_program_has_frozen_stay_frozen() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    with collection_paused():
        pass
    assert gc.get_freeze_count() >= frozen > 0
