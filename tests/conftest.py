"""Fixtures of the tests of the whole."""

import pytest

pytest_plugins = ["apothic_server.testing.postgres"]


@pytest.fixture
def anyio_backend():
    return "asyncio"
