"""Ending a cloud, and what a killed one left in its data folder: its worker with all user code, and its database."""

from __future__ import annotations

import asyncio
import os
import pwd
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from apothic_server import local_process
from apothic_server.domain.errors import Unavailable

CLEAN_S = 30.0


def stop_process(pid: int, deadline_s: float) -> bool:
    """Ask a process to end; return whether it has. One that is gone already has."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGTERM)
        return bool(select.select([process], [], [], deadline_s)[0])
    finally:
        os.close(process)


def end_leftovers(folder: Path, deadline_s: float) -> list[str]:
    """End what is left and return what that was: some of `worker`, `user code` and `database`. Call with the lock held.

    Args:
        deadline_s: How long the worker may take to end by itself.

    Raises:
        PlatformError: Something does not end.
    """
    left: list[str] = []
    worker = local_process.find(folder / "worker")
    if worker is not None:
        worker.end(deadline_s)
        worker.close()
        left.append("worker")
    if (folder / "worker" / "worker.json").exists():
        _clean(folder / "worker")
        left.append("user code")
    if (folder / "postgres" / "data" / "postmaster.pid").exists():
        asyncio.run(_stop_database(folder / "postgres"))
        left.append("database")
    return left


def _clean(folder: Path) -> None:
    """Let the program of the worker remove what a worker that was killed left: it knows what it had."""
    command = [sys.executable, "-P", "-m", "apothic_worker.cli", "clean", "--data", str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CLEAN_S)
    if done.returncode != 0:
        raise Unavailable(f"what the worker left in {folder} cannot be removed: {done.stderr.strip()}")


async def _stop_database(folder: Path) -> None:
    from apothic_server.store.launcher import EmbeddedPostgres

    store = EmbeddedPostgres(folder, pg_user=_user_of(folder / "data"))
    await store.start()
    await store.stop()


def _user_of(data: Path) -> str | None:
    """Return the user that a database was started as with `--pg-user`."""
    owner = data.stat().st_uid
    return None if owner == os.geteuid() else pwd.getpwuid(owner).pw_name
