"""One Prefect server for every test here that talks to one in this process."""

from collections.abc import Iterator

import pytest
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="session")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=3600):  # until it answers; a busy machine takes its time
        yield
