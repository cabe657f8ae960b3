"""Fixtures of the server's tests."""

import pytest

from apothic_server.bootstrap import Cloud, Sources

pytest_plugins = ["apothic_server.testing.postgres", "apothic_server.testing.cloud"]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def restart(cloud, postgres, tmp_path):
    """Stop the cloud's process and start another one on the same store."""
    started = []

    async def do():
        await cloud.inner.stop()
        sources = Sources(clock=cloud.clock, random=lambda: 0.0)
        started.append(Cloud(postgres, tmp_path, url="http://next.test", sources=sources))
        await started[-1].start(run_loops=False)
        cloud.inner = started[-1]

    yield do
    for one in started:
        await one.stop()
