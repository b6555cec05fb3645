from collections.abc import Iterator

import pytest

from tests.ordinary_user import OrdinaryUser, open_ordinary_user


@pytest.fixture(scope="session")
def ordinary_user() -> Iterator[OrdinaryUser]:
    """Somebody who is not root; as root another account, with a copy of patchbay as it was at first use."""
    with open_ordinary_user() as user:
        yield user
