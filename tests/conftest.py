"""What holds for every test: its programs end with it, and it tells of the machine when it fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.ordinary_user import OrdinaryUser, open_ordinary_user
from tests.processes import end_groups

pytest_plugins = ["tests.leftovers", "tests.machine"]

# A busy machine makes single examples slow, which is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def started_programs_end() -> Iterator[None]:
    yield
    end_groups()


@pytest.fixture(scope="session")
def ordinary_user() -> Iterator[OrdinaryUser]:
    """Somebody who is not root; as root another account, with a copy of patchbay as it was at first use."""
    with open_ordinary_user() as user:
        yield user
