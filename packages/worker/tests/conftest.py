"""A scripted server and real worker processes."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from apothic_worker.folders import remove
from apothic_worker.testing.scripted_server import ScriptedServer

OPTIONS = ("--local", "--name", "tester")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class WorkerProcess:
    """A worker started as a program, at this wall time in seconds."""

    process: asyncio.subprocess.Process
    data: Path
    began: float

    async def stop(self) -> int:
        """Send TERM and return the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


async def start_worker(
    server: ScriptedServer | None,
    data: Path,
    *options: str | Path,
    token: str | None = None,
    path: str | None = None,
    verb: str = "run",
) -> WorkerProcess:
    """Start `apothic-worker run` against the server, if one is named, with another PATH when given; or `join`."""
    address = ["--url", server.url] if server and verb == "run" else []
    command = [sys.executable, "-m", "apothic_worker.cli", verb, *address, "--data", str(data), *map(str, options)]
    given = token or (server.token if server else "")
    environment = {**os.environ, "APOTHIC_WORKER_TOKEN": given, "PATH": path or os.environ["PATH"]}
    began = time.time()
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stderr=asyncio.subprocess.PIPE, limit=1024 * 1024
    )
    return WorkerProcess(process, data, began)


def cgroups_of(worker: WorkerProcess) -> list[Path]:
    """Return the cgroups that a worker process made; a killed one that had its pid before may have left others."""
    folders = (Path(folder, name) for folder, names, _ in os.walk("/sys/fs/cgroup") for name in names)
    named = [folder for folder in folders if folder.match(f"apothic-{worker.process.pid}-*")]
    return [folder for folder in named if folder.stat().st_ctime >= worker.began]


@asynccontextmanager
async def linked(data: Path, *options: str) -> AsyncIterator[tuple[ScriptedServer, WorkerProcess]]:
    """A server and a worker that said hello; afterwards nothing of the worker may be left."""
    async with ScriptedServer() as server:
        worker = await start_worker(server, data, *(options or OPTIONS))
        try:
            await server.wait_for_hello(worker.process)
            yield server, worker
        finally:
            await worker.stop()
            left = cgroups_of(worker)
            remove(data / "archives")
            remove(data / "runtime")
    assert left == []


@pytest.fixture(scope="module")
async def cloud_and_worker(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[ScriptedServer, WorkerProcess]]:
    """A server with one linked worker, shared by the tests of a module."""
    async with linked(tmp_path_factory.mktemp("worker")) as pair:
        yield pair


@pytest.fixture(scope="module")
def cloud(cloud_and_worker: tuple[ScriptedServer, WorkerProcess]) -> ScriptedServer:
    """The server of the module."""
    return cloud_and_worker[0]


@pytest.fixture(scope="module")
def group_file(cloud_and_worker: tuple[ScriptedServer, WorkerProcess]) -> Callable[[str, str], Path | None]:
    """Returns the file of a name in a control group of a runner of the module's worker, and of no other one."""

    def find(runner: str, name: str) -> Path | None:
        bases = (cloud_and_worker[1].data / "cgroups").read_text().split()
        files = (Path(base, f"r-{runner}", name) for base in bases)
        return next((file for file in files if file.exists()), None)

    return find
