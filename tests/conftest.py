"""Fixtures of the tests of the whole."""

import signal

import pytest

pytest_plugins = ["apothic_server.testing.postgres"]


def pytest_configure() -> None:
    """Let programs of the tests be interrupted also when these run in the background of a shell, which forbids that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend():
    return "asyncio"
