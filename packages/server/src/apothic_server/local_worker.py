"""The worker beside the server: a child process that is restarted when it dies and never outlives us."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from apothic_server.settings import Settings

log = structlog.get_logger("apothic.worker")

NAME = "local"
STOP_S = 25.0
"""A worker that is told to stop lets jobs run for 15 s (G2.5) and then ends them."""

RESTART_FIRST_S, RESTART_MAX_S = 0.5, 30.0


class LocalWorker:
    """Keeps one worker process running.

    Args:
        on_death: Told after a process ended, before the next one starts.
    """

    def __init__(
        self, settings: Settings, *, url: str, token: Path, on_death: Callable[[str], Awaitable[None]]
    ) -> None:
        self._command = _command(settings, url, token)
        self._log = settings.data / "worker.log"
        self._on_death = on_death
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self.failed = asyncio.Event()

    async def start(self) -> None:
        """Start the process and keep it running from then on."""
        await self._spawn()
        self._task = asyncio.create_task(self._keep(), name="local worker")

    async def stop(self) -> None:
        """Drain and end the process; kill it when it takes longer than `STOP_S`."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    def why_failed(self) -> str:
        """Return the reason that the worker wrote last, and where its log is."""
        try:
            lines = self._log.read_text(errors="replace").split("\n")
        except OSError:
            lines = []
        said = [line for line in lines if line.strip()] or ["it said nothing"]
        return f"{_reason(said[-1])}; see {self._log}"

    async def _spawn(self) -> None:
        descriptor = self._log.open("wb")
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
            )
        finally:
            descriptor.close()

    async def _keep(self) -> None:
        wait_s = RESTART_FIRST_S
        while self._process is not None:
            status = await self._process.wait()
            self.failed.set()
            log.warning("worker.exited", status=status, restart_in_s=wait_s)
            await self._on_death(f"the local worker ended with status {status}")
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, RESTART_MAX_S)
            await self._spawn()


def _reason(line: str) -> str:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(json.loads(line)["reason"])
    return line.strip()


def _command(settings: Settings, url: str, token: Path) -> list[str]:
    # -P: modules of the folder in which somebody starts a cloud are none of ours.
    command = [sys.executable, "-P", "-m", "apothic_worker.cli", "run", "--url", url, "--token-file", str(token)]
    command += ["--data", str(settings.data / "worker"), "--name", NAME, "--local", "--exit-with-parent"]
    for flag, value in (
        ("--executor", settings.executor),
        ("--cpus", settings.cpus),
        ("--memory-mb", settings.memory_mb),
    ):
        if value is not None:
            command += [flag, str(value)]
    return [*command, "--trust-user-code"] if settings.trust_user_code else command
