"""Fixtures of the server's tests."""

import pytest

pytest_plugins = ["apothic_server.testing.postgres", "apothic_server.testing.cloud"]


@pytest.fixture
def anyio_backend():
    return "asyncio"
