"""One connection of the batching writer: a flush is one set-based statement per record kind, committed once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import Enum
from typing import Protocol, cast

import asyncpg

from apothic_server.domain.errors import Unavailable
from apothic_server.domain.jobs import NewItems
from apothic_server.failpoints import fp
from apothic_server.store.connection import Connection, Statement
from apothic_server.store.pending import Pending
from apothic_server.store.rows import document, items_arguments, lone_arguments
from apothic_server.store.statements import load

SQL = load("writer")

_SESSION = (
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off; SET statement_timeout = {ms}"
)
_LOOKED_AT = ("jobs_pkey", "idempotency_keys_pkey")
_AGAIN = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
_LOST = (
    OSError,
    Unavailable,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InternalClientError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidCachedStatementError,
)


Run = Callable[[list[Pending], int], Awaitable[set[str]]]
"""Sends what is pending of one kind, given the number of the flush; returns the jobs that were written."""


class Connect(Protocol):
    """Opens a connection as the tables' owner."""

    def __call__(self) -> Awaitable[Connection]: ...


class Trouble(Enum):
    """What a failed flush calls for."""

    AGAIN = "again"
    """Nothing was applied; the same flush may succeed now."""

    LOST = "lost"
    """The connection is of no use any more, and whether the flush was applied is not known."""

    DATA = "data"
    """Nothing was applied, and one of the records is the cause."""


def trouble_of(error: Exception) -> Trouble:
    """Sort a failure of a flush or of a connection attempt."""
    if isinstance(error, _AGAIN):
        return Trouble.AGAIN
    if isinstance(error, asyncpg.UniqueViolationError) and _constraint(error) in _LOOKED_AT:
        return Trouble.AGAIN  # Inserted by somebody else between our look and our insert: the next look refuses it.
    if isinstance(error, _LOST) or (isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError)):
        return Trouble.LOST
    return Trouble.DATA


class FlushConnection:
    """An open connection with prepared statements. Not for concurrent use.

    Args:
        connection: Dedicated to this object, open, of the tables' owner.
        timeout_s: Bound of every statement.
        before_commit: Awaited right before what makes a flush durable is sent.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        timeout_s: float,
        before_commit: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._before_commit = before_commit
        self._insert: Statement | None = None
        self._insert_one: Statement | None = None
        self._change: Statement | None = None
        self._append: Statement | None = None
        self.backend: tuple[int, datetime] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the connection was not closed by either side, as far as is known."""
        return not self._connection.is_closed()

    async def prepare(self) -> None:
        """Set up the session. The empty flush at the end makes the plans, so that the first real one is fast."""
        await self._connection.execute(_SESSION.format(ms=round(self._timeout_s * 1000)), timeout=self._timeout_s)
        self._insert = await self._connection.prepare(SQL["insert_jobs"], timeout=self._timeout_s)
        self._insert_one = await self._connection.prepare(SQL["insert_job"], timeout=self._timeout_s)
        self._change = await self._connection.prepare(SQL["change_jobs"], timeout=self._timeout_s)
        self._append = await self._connection.prepare(SQL["append_items"], timeout=self._timeout_s)
        row = await self._connection.fetchrow(SQL["own_backend"], timeout=self._timeout_s)
        if row is not None:
            self.backend = (row["pid"], row["backend_start"])
        await self._run_insert([], 0)
        await self._run_change([], 0)
        await self._run_append([], 0)

    async def write(self, batch: Sequence[Pending], flush: int) -> set[str]:
        """Apply a batch, sorted by key and with each job once, in one commit; return the jobs that were written.

        Raises:
            Exception: Nothing was applied, unless `trouble_of` says `LOST`.
        """
        new = [pending for pending in batch if pending.is_new]
        items = [pending for pending in batch if pending.has_items]
        changes = [pending for pending in batch if not (pending.is_new or pending.has_items)]
        kinds = ((new, self._run_insert), (changes, self._run_change), (items, self._run_append))
        steps = [(some, run) for some, run in kinds if some]
        if len(steps) > 1:
            return await self._write_all(steps, flush)
        if self._before_commit is not None:
            await self._before_commit()
        some, run = steps[0]
        return await run(some, flush)

    async def written_by(self, batch: Sequence[Pending], flush: int) -> set[str]:
        """Return which jobs of `batch` the flush with this number has written."""
        jobs, orgs = [pending.job for pending in batch], [pending.org for pending in batch]
        rows = await self._connection.fetch(SQL["find_flush"], jobs, orgs, flush, timeout=self._timeout_s)
        return {row["id"] for row in rows}

    async def end_backend(self, backend: tuple[int, datetime]) -> None:
        """Make sure that the server process of a lost connection does nothing any more.

        Raises:
            TimeoutError: It does not end.
        """
        wait_ms = round(self._timeout_s * 500)
        is_gone = await self._connection.fetchval(SQL["end_backend"], *backend, wait_ms, timeout=self._timeout_s)
        if is_gone is False:
            raise TimeoutError("a lost connection's server process does not end")

    async def close(self) -> None:
        """Close in good order, or at once when that takes too long."""
        try:
            await self._connection.close(timeout=self._timeout_s)
        except Exception as error:
            if trouble_of(error) is not Trouble.LOST:
                raise
            self.abandon()

    def abandon(self) -> None:
        """Drop the connection without a word."""
        self._connection.terminate()

    async def _write_all(self, steps: Sequence[tuple[list[Pending], Run]], flush: int) -> set[str]:
        done: set[str] = set()
        await self._connection.execute("BEGIN", timeout=self._timeout_s)
        try:
            for some, run in steps:
                done |= await run(some, flush)
        except Exception as error:
            if trouble_of(error) is not Trouble.LOST:
                await self._connection.execute("ROLLBACK", timeout=self._timeout_s)
            raise
        await fp("writer.commit")
        if self._before_commit is not None:
            await self._before_commit()
        await self._connection.execute("COMMIT", timeout=self._timeout_s)
        return done

    async def _run_insert(self, new: list[Pending], flush: int) -> set[str]:
        assert self._insert is not None and self._insert_one is not None, "the connection is not prepared"
        if len(new) == 1 and (given := lone_arguments(new[0].row, flush)) is not None:
            found = await self._insert_one.fetch(*given, timeout=self._timeout_s)
            return {row[0] for row in found}
        rows = [pending.row for pending in new]
        arguments, results = [row.arguments for row in rows], [row.result for row in rows]
        found = await self._insert.fetch(document(rows), arguments, results, flush, timeout=self._timeout_s)
        return {row[0] for row in found}

    async def _run_change(self, changes: list[Pending], flush: int) -> set[str]:
        assert self._change is not None, "the connection is not prepared"
        rows = [pending.row for pending in changes]
        results = [row.result for row in rows]
        found = await self._change.fetch(document(rows), results, flush, timeout=self._timeout_s)
        return {row[0] for row in found}

    async def _run_append(self, items: list[Pending], flush: int) -> set[str]:
        assert self._append is not None, "the connection is not prepared"
        records = [cast("NewItems", pending.parts[0].record) for pending in items]
        found = await self._append.fetch(*items_arguments(records), flush, timeout=self._timeout_s)
        return {row[0] for row in found}


def _constraint(error: asyncpg.PostgresError) -> str | None:
    # The driver sets the fields of the server's message without declaring them.
    return getattr(error, "constraint_name", None)
