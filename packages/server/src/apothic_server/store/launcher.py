"""Starts, adopts and stops the embedded PostgreSQL server (D2).

Rules:
- A folder has one user at a time: the lock is held from `start` to `stop` or the end of this process.
- The server is no part of our life: it has a session of its own, so Ctrl-C in the terminal does not reach it, and when
  this process is killed it keeps running. The next start finds it by its pid file and adopts it when it accepts our
  password.
- A server whose folder was moved meanwhile listens at the old path. It is ended and started again.
- What a killed server leaves, a stale pid file or processes without a postmaster, is cleared before the next start.
- PostgreSQL refuses to run as user 0. For root it runs in a user namespace, or as `pg_user` (see `pgexec`).
- It listens on a socket only, with a password; the folder of the socket is closed to other users.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import asyncpg

from apothic_server.store import pgexec
from apothic_server.store.address import StoreAddress
from apothic_server.store.binaries import Binaries, clean_env, find_binaries
from apothic_server.store.connection import connect_plainly
from apothic_server.store.errors import StoreError
from apothic_server.store.folder import StoreFolder
from apothic_server.store.postmaster import Postmaster, find_postmaster, processes_in, read_pid_file, works_in
from apothic_server.store.server_settings import initdb_settings, server_settings

USER = "apothic"
DATABASE = "apothic"
START_DEADLINE_S = 120.0
"""Recovery after a crash is part of a start and replays at most `max_wal_size` of log."""

STOP_DEADLINE_S = 30.0
INITDB_DEADLINE_S = 120.0
_ABORT_DEADLINE_S = 5.0
_ORPHANS_DEADLINE_S = 5.0
_POLL_S = 0.005


class EmbeddedPostgres:
    """One PostgreSQL server in one folder.

    Args:
        folder: Made when missing, parents too. Must be empty or a store of ours, and belong to this process's user.
        pg_user: As root, run the server as this existing user instead of in a user namespace.
        binaries: Folder with `postgres` and `initdb`; None looks for them.
        settings: PostgreSQL settings over ours, by name. An unsafe one starts, and `prepare_store` refuses it then.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pg_user: str | None = None,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._root = folder
        self._pg_user = pg_user
        self._binaries = binaries
        self._settings = dict(settings or {})
        self._lock: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._folder: StoreFolder | None = None
        self._address: StoreAddress | None = None

    async def start(self) -> StoreAddress:
        """Start the server or adopt the one that runs; wait until it takes connections. Twice is fine.

        Returns:
            The address of the database `apothic`, which exists.

        Raises:
            StoreError: The folder, the programs or the identity do not allow it, or the server did not come up. Nothing
                of it runs then.
        """
        if self._address is not None:
            return self._address
        binaries = await asyncio.to_thread(find_binaries, self._binaries)
        folder = StoreFolder(self._root.absolute(), server_uid(self._pg_user))
        self._lock, self._folder = folder.claim(), folder
        try:
            self._address = await self._run(folder, binaries)
        except BaseException:
            await asyncio.to_thread(self._abort)
            raise
        return self._address

    async def stop(self) -> None:
        """Stop the server cleanly and wait for its end; let the folder go. Before `start` and twice is fine.

        Connections are closed by the server. After `STOP_DEADLINE_S` it is stopped without a checkpoint: the next start
        recovers, nothing that was acknowledged is lost.
        """
        if self._folder is None or self._pid is None or self._address is None:
            return
        try:
            if not await self._end(self._pid, signal.SIGINT, STOP_DEADLINE_S):
                await self._end(self._pid, signal.SIGQUIT, _ABORT_DEADLINE_S)
            await _clear_orphans(self._folder)
            self._folder.trim_log()
            self._folder.remove_socket_folder(Path(self._address.host))
        finally:
            self._let_go()

    @property
    def is_running(self) -> bool:
        """Whether the server's first process lives; False before `start` and after `stop`."""
        if self._child is not None:
            return self._child.poll() is None
        return self._folder is not None and self._pid is not None and works_in(self._pid, self._folder.data)

    async def ended(self) -> None:
        """Return when the server's first process lives no more; at once before `start` and after `stop`."""
        if not self.is_running or self._pid is None:
            return
        try:
            handle = os.pidfd_open(self._pid)
        except ProcessLookupError:
            return
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(handle, over.set)
        try:
            if self.is_running:  # else it ended, and its number may be another process's by now
                await over.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)

    def trim_log(self) -> None:
        """Keep the log within its bound; a maintenance loop calls it from time to time."""
        if self._folder is not None:
            self._folder.trim_log()

    async def _run(self, folder: StoreFolder, binaries: Binaries) -> StoreAddress:
        password = folder.read_or_make_password()
        running = await _settle(folder)
        if running is not None and not running.has_socket:
            running = await self._end_moved(running, folder)
        if running is None:
            await _make_data(folder, binaries, self._identity())
            running = await self._launch(folder, binaries)
        self._pid = running.pid
        address = StoreAddress(host=running.socket_folder, user=USER, password=password, database=DATABASE)
        await _make_database(address, folder)
        return address

    async def _end_moved(self, running: Postmaster, folder: StoreFolder) -> Postmaster | None:
        """End a server whose folder was moved while it ran: it listens where nobody finds it any more."""
        self._pid = running.pid
        if not await self._end(running.pid, signal.SIGINT, STOP_DEADLINE_S):
            await self._end(running.pid, signal.SIGQUIT, _ABORT_DEADLINE_S)
        return await _settle(folder)

    async def _launch(self, folder: StoreFolder, binaries: Binaries) -> Postmaster:
        socket_folder = folder.make_socket_folder()
        settings = {**server_settings(binaries.major, socket_folder), **self._settings}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = folder.open_log()
        try:
            self._child = subprocess.Popen(  # noqa: ASYNC220 - returns when the program is loaded
                [*self._identity(), str(binaries.postgres), "-D", str(folder.data), *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_env(),
                cwd="/",
                umask=0o077,
                start_new_session=True,
            )
        finally:
            os.close(log)
        return await self._wait_ready(folder, self._child)

    async def _wait_ready(self, folder: StoreFolder, child: subprocess.Popen[bytes]) -> Postmaster:
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            if child.poll() is not None:
                raise _start_failed(folder, child.returncode)
            told = read_pid_file(folder.data)
            if told is not None and told.pid == child.pid and told.state == "ready":
                return told
            await asyncio.sleep(_POLL_S)
        raise StoreError(f"the store in {folder.root} was not ready after {START_DEADLINE_S:.0f} s; see {folder.log}")

    def _identity(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        how = ["user", self._pg_user] if self._pg_user is not None else ["user-namespace"]
        return [sys.executable, "-I", "-S", pgexec.__file__, *how, "--"]

    async def _end(self, pid: int, number: signal.Signals, deadline_s: float) -> bool:
        deadline = time.monotonic() + deadline_s
        if self.is_running:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        while time.monotonic() < deadline:
            if not self.is_running:
                return True
            await asyncio.sleep(_POLL_S)
        return False

    def _abort(self) -> None:
        """Undo a start that failed: end what this start launched, leave an adopted server alone."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGQUIT)
            try:
                self._child.wait(_ABORT_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait(_ABORT_DEADLINE_S)
        self._let_go()

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
        self._lock = self._child = self._pid = self._folder = self._address = None


def server_uid(pg_user: str | None) -> int:
    """Return the id of the user that runs the server.

    Raises:
        StoreError: `store_identity`: there is no such user, it is root, or we may not become it.
    """
    if pg_user is None:
        return os.geteuid()
    try:
        uid = pwd.getpwnam(pg_user).pw_uid
    except KeyError:
        raise StoreError(f"there is no user {pg_user!r} to run the store", code="store_identity") from None
    if uid == 0:
        raise StoreError("PostgreSQL does not run as root; name another user", code="store_identity")
    if os.geteuid() not in (0, uid):
        raise StoreError(f"only root can run the store as the user {pg_user!r}", code="store_identity")
    return uid


async def _settle(folder: StoreFolder) -> Postmaster | None:
    """Wait until the server of an earlier start is ready to be adopted, or until nothing of it is left."""
    deadline = time.monotonic() + START_DEADLINE_S
    while (running := find_postmaster(folder.data)) is not None:
        if running.state == "ready":
            return running
        if time.monotonic() > deadline:
            raise StoreError(
                f"the server that already runs in {folder.root} (process {running.pid}) is {running.state or 'silent'}",
                code="data_folder_busy",
            )
        await asyncio.sleep(_POLL_S)
    await _clear_orphans(folder)
    # A pid that another program got meanwhile would keep PostgreSQL from starting. Nothing works in the folder now.
    (folder.data / "postmaster.pid").unlink(missing_ok=True)
    return None


async def _clear_orphans(folder: StoreFolder) -> None:
    """End processes whose postmaster was killed; they would keep its memory and hinder the next start."""
    deadline = time.monotonic() + _ORPHANS_DEADLINE_S
    while orphans := await asyncio.to_thread(processes_in, folder.data):
        if time.monotonic() > deadline:
            raise StoreError(f"processes {orphans} still work in {folder.data}", code="data_folder_busy")
        for pid in orphans:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(_POLL_S)


async def _make_data(folder: StoreFolder, binaries: Binaries, identity: list[str]) -> None:
    if folder.data.exists():
        folder.check_version(binaries.major)
        return
    await asyncio.to_thread(folder.remove_staged)
    folder.make_folder(folder.staged)
    command = [str(binaries.initdb), "-D", str(folder.staged), "-U", USER, f"--pwfile={folder.password}"]
    options = ["-k", "--auth-local=scram-sha-256", "--auth-host=reject", "--encoding=UTF8", "--locale=C"]
    settings = [f"--set={name}={value}" for name, value in initdb_settings(binaries.major).items()]
    status, output = await _run_to_end([*identity, *command, *options, *settings], INITDB_DEADLINE_S)
    if status != 0:
        raise _failed("the store's folder could not be prepared", status, output)
    folder.keep_staged()


async def _run_to_end(command: list[str], deadline_s: float) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=clean_env(),
        cwd="/",
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), deadline_s)
    except TimeoutError:
        return -1, f"no end after {deadline_s:.0f} s"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode or 0, output.decode("utf-8", "replace")


async def _make_database(address: StoreAddress, folder: StoreFolder) -> None:
    """Check that the server accepts our password, and make the database the first time."""
    try:
        try:
            connection = await connect_plainly(address)
        except asyncpg.InvalidCatalogNameError:
            connection = await connect_plainly(address.with_database("postgres"))
            await connection.execute(f"CREATE DATABASE {DATABASE}")
        await connection.close()
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise StoreError(
            f"the server that runs in {folder.data} does not accept the password in {folder.password}",
            code="data_folder_busy",
        ) from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StoreError(f"the store in {folder.root} runs and takes no connection; see {folder.log}") from error


def _start_failed(folder: StoreFolder, status: int) -> StoreError:
    with folder.log.open("rb") as file:
        file.seek(max(0, folder.log.stat().st_size - 4096))
        return _failed(f"the store in {folder.root} did not start", status, file.read().decode("utf-8", "replace"))


def _failed(what: str, status: int, output: str) -> StoreError:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if any("No space left on device" in line for line in lines):
        return StoreError(f"{what}: the disk is full; free some space or choose another data folder", code="disk_full")
    telling = [line for line in lines if "FATAL" in line or "error" in line or "cannot" in line] or lines
    reason = telling[-1] if telling else f"exit status {status}"
    if status == pgexec.EXIT_NO_IDENTITY:
        advice = "start as a user other than root, or name an existing one with --pg-user"
        return StoreError(f"{what}: {reason}; {advice}", code="store_identity")
    return StoreError(f"{what}: {reason}")
