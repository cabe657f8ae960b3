"""The worker beside the server: a process that is started again when it dies, and that outlives a server that dies.

A server that is killed leaves its worker and all user code running. The next one on the same data folder finds the
process, tells it the new address by a file and takes it over; its attempts go on as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Protocol

import structlog

from apothic.wire.version import VERSION
from apothic_server.domain.errors import PlatformError
from apothic_server.identity import write_private
from apothic_server.local_process import WorkerProcess, find, start
from apothic_server.settings import Settings

log = structlog.get_logger("apothic.worker")

STOP_S = 25.0
"""A worker that is told to stop lets jobs run for 15 s (G2.5) and then ends them."""

READY_S = 60.0
TAKE_OVER_S = 30.0
"""A worker that was found alive and does not dial in within this time is replaced."""

RESTART_FIRST_S, RESTART_MAX_S = 0.5, 30.0
STARTS_MAX = 3
"""Workers that a start of the cloud tries, when each is killed before it has dialled in."""


class OnDeath(Protocol):
    """Gives back the leases of local workers whose death is proven."""

    def __call__(self, why: str, /, *, but: str = "") -> Awaitable[None]:
        """Give them back, but not those of the incarnation `but`."""
        ...


class LocalWorker:
    """Keeps one worker process running.

    Args:
        url: Where it finds the server.
        token: File with its token.
        linked: Set whenever a local worker has dialled in.
        on_death: Told after a process ended, before the next one starts.
    """

    def __init__(self, settings: Settings, *, url: str, token: Path, linked: asyncio.Event, on_death: OnDeath) -> None:
        self._address = settings.data / "worker-address"
        self._command = _command(settings, self._address, token)
        self._folder = settings.data / "worker"
        self._log = settings.data / "worker.log"
        self._url = url
        self._linked = linked
        self._on_death = on_death
        self._process: WorkerProcess | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> bool:
        """Take over the worker that runs, or start one, and keep it running from then on.

        Returns:
            Whether it has dialled in; `why_failed` says why not.
        """
        self._process = await self._take_over()
        if self._process is None:
            await self._on_death("the cloud was stopped and started again")
            if not await self._first():
                return False
        self._task = asyncio.create_task(self._keep(), name="local worker")
        return True

    async def stop(self) -> None:
        """Drain and end the process; kill it when it takes longer than `STOP_S`."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(process.end, STOP_S)
            process.close()

    def why_failed(self) -> str:
        """Return the reason that the worker wrote last, and where its log is."""
        try:
            lines = self._log.read_text(errors="replace").split("\n")
        except OSError:
            lines = []
        said = [line for line in lines if line.strip()] or ["it said nothing"]
        return f"{_reason(said[-1])}; see {self._log}"

    async def _take_over(self) -> WorkerProcess | None:
        found = find(self._folder)
        if found is None:
            return None
        is_ours = found.version == VERSION and found.command == self._command
        if is_ours:
            await self._on_death("another start of the worker replaced it", but=found.incarnation)
            self._tell_address()
            if await self._dials_in(found, TAKE_OVER_S):
                log.info("worker.taken_over", pid=found.pid, incarnation=found.incarnation)
                return found
        log.warning("worker.replaced", pid=found.pid, version=found.version, is_ours=is_ours)
        await asyncio.to_thread(found.end, STOP_S, hurry=True)
        found.close()
        return None

    async def _first(self) -> bool:
        """Start a worker that dials in. One that was killed is no reason to give up: it says nothing about the next."""
        for number in range(STARTS_MAX):
            if number and self._process is not None:
                self._process.close()
                await self._on_death("the local worker was killed while it started")
            process = self._process = self._spawn()
            if await self._dials_in(process, READY_S):
                return True
            if not process.was_killed:
                break
        return False

    async def _dials_in(self, process: WorkerProcess, deadline_s: float) -> bool:
        waits = [asyncio.create_task(self._linked.wait()), asyncio.create_task(process.wait())]
        try:
            await asyncio.wait(waits, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
            return waits[0].done() and not waits[1].done()
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _tell_address(self) -> None:
        write_private(self._address, f"{self._url}\n".encode())

    def _spawn(self) -> WorkerProcess:
        self._tell_address()
        self._linked.clear()
        return start(self._command, self._log)

    async def _keep(self) -> None:
        wait_s: float | None = None
        while (process := self._process) is not None:
            status = await process.wait()
            self._process = None
            process.close()
            wait_s = restart_wait_s(wait_s, has_dialled_in=self._linked.is_set())
            log.warning("worker.exited", status=status, restart_in_s=wait_s)
            how = "is gone" if status is None else f"ended with status {status}"
            while (started := await self._replace(f"the local worker {how}", wait_s)) is None:
                wait_s = restart_wait_s(wait_s, has_dialled_in=False)
            self._process = started

    async def _replace(self, why: str, wait_s: float) -> WorkerProcess | None:
        """Give back what a dead worker had and start the next one; None when that has to be tried again."""
        try:
            await self._on_death(why)
            await asyncio.sleep(wait_s)
            return self._spawn()
        except (PlatformError, OSError) as error:  # the store is away, or the disk is full
            log.warning("worker.not_restarted", error=str(error), again_in_s=wait_s)
            await asyncio.sleep(wait_s)
            return None


def restart_wait_s(last_s: float | None, *, has_dialled_in: bool) -> float:
    """Return how long to wait before a worker that died is started again.

    Args:
        last_s: The wait before its last start; None without one.
        has_dialled_in: It worked: its death is the first one again.
    """
    return RESTART_FIRST_S if last_s is None or has_dialled_in else min(last_s * 2, RESTART_MAX_S)


def _reason(line: str) -> str:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(json.loads(line)["reason"])
    return line.strip()


def _command(settings: Settings, address: Path, token: Path) -> list[str]:
    # -P: modules of the folder in which somebody starts a cloud are none of ours.
    command = [sys.executable, "-P", "-m", "apothic_worker.cli", "run", "--url-file", str(address)]
    command += ["--token-file", str(token), "--data", str(settings.data / "worker")]
    command += ["--name", settings.worker_name, "--local", *(["--leased"] if settings.is_sharable else [])]
    for flag, value in (
        ("--executor", settings.executor),
        ("--cpus", settings.cpus),
        ("--memory-mb", settings.memory_mb),
        ("--disk-floor-mb", settings.disk_floor_mb),
    ):
        if value is not None:
            command += [flag, str(value)]
    return [*command, "--trust-user-code"] if settings.trust_user_code else command
