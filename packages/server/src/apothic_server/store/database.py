"""The two ways to the store: requests of tenants, and work of the installation itself.

A request unit runs as the role `apothic_request`, for which row-level security holds: it sees and changes the rows of
its org only, whatever a query forgot (G16.1). A system unit runs as the owner of the tables and sees all orgs; its
statements carry the org themselves. Both are one transaction: the block's end commits, an exception rolls back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Protocol, cast

import asyncpg
import structlog

from apothic.wire.ids import OrgId, is_key
from apothic_server.store.address import StoreAddress
from apothic_server.store.connection import CONNECT_DEADLINE_S, Connection, connect, session_settings
from apothic_server.store.errors import StoreAway, StoreError, store_errors

log = structlog.get_logger("apothic.store")

REQUEST_ROLE = "apothic_request"
REQUEST_CONNECTIONS_MAX = 16
SYSTEM_CONNECTIONS_MAX = 4
ACQUIRE_DEADLINE_S = 5.0
"""Longest wait for a free connection; after it the request is answered 503."""

REQUEST_DEADLINE_S = 10.0
SYSTEM_DEADLINE_S = 30.0
WRITER_DEADLINE_S = 30.0
_CLOSE_DEADLINE_S = 5.0
_ROLLBACK_FAILED = (OSError, EOFError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class _Pool(Protocol):
    """What we use of `asyncpg.Pool`."""

    def acquire(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[Connection]: ...
    async def close(self) -> None: ...
    def terminate(self) -> None: ...


_create_pool = cast(
    "Callable[..., Awaitable[_Pool]]",
    asyncpg.create_pool,  # pyright: ignore[reportUnknownMemberType] - the driver declares no types
)


class Database:
    """The connections to one store. Make it with `open`, after `prepare_store`."""

    def __init__(self, address: StoreAddress, request: _Pool, system: _Pool, acquire_deadline_s: float) -> None:
        self.address = address
        self._acquire_deadline_s = acquire_deadline_s
        self._outage = Outage()
        self._request = request
        self._system = system

    @classmethod
    async def open(
        cls,
        address: StoreAddress,
        *,
        request_connections_max: int = REQUEST_CONNECTIONS_MAX,
        system_connections_max: int = SYSTEM_CONNECTIONS_MAX,
        acquire_deadline_s: float = ACQUIRE_DEADLINE_S,
    ) -> Database:
        """Connect, and check that the request path really is the restricted role.

        Args:
            address: The store, with the user that owns the tables.
            request_connections_max: Most connections for request units at once; one is opened now.
            system_connections_max: Most connections for system units at once; one is opened now.
            acquire_deadline_s: Longest wait of a unit for a free connection, in seconds.

        Raises:
            Unavailable: The store is away.
            StoreError: `store_not_prepared` or `unsafe_store`: `prepare_store` was not run, or row-level security does
                not hold.
        """
        with store_errors(connecting=True):
            system = await _open_pool(address, "system", SYSTEM_DEADLINE_S, system_connections_max)
        try:
            with store_errors(connecting=True):
                request = await _open_request_pool(address, request_connections_max)
        except BaseException:
            system.terminate()
            raise
        return cls(address, request, system, acquire_deadline_s)

    @asynccontextmanager
    async def request_unit(self, org: OrgId) -> AsyncGenerator[Connection]:
        """Yield a connection in a transaction that sees the rows of `org` only.

        Do not open a transaction in it: it is one already. Do not do anything in it but statements.

        Raises:
            ValueError: `org` is no key; an error of ours, since orgs come from authentication.
            Unavailable: The store is away, too slow, or no connection was free in time.
        """
        if not is_key(org):
            raise ValueError("an org is a key of 26 characters")
        # One round trip instead of two. The org is checked above, so it can stand in the text.
        begin = f"BEGIN; SET LOCAL apothic.org = '{org}'"
        with self._outage.noticed():
            async with _unit(self._request, begin, self._acquire_deadline_s) as connection:
                yield connection

    @asynccontextmanager
    async def system_unit(self) -> AsyncGenerator[Connection]:
        """Yield a connection in a transaction that sees all orgs; every statement carries the org itself.

        Raises:
            Unavailable: As for `request_unit`.
        """
        with self._outage.noticed():
            async with _unit(self._system, "BEGIN", self._acquire_deadline_s) as connection:
                yield connection

    @asynccontextmanager
    async def system_read(self) -> AsyncGenerator[Connection]:
        """Yield a connection without a transaction, for single statements that change nothing: one round trip each.

        As in a system unit, every statement carries the org itself.

        Raises:
            Unavailable: As for `request_unit`.
        """
        with self._outage.noticed(), store_errors(connecting=True):
            async with AsyncExitStack() as stack:
                connection = await stack.enter_async_context(self._system.acquire(timeout=self._acquire_deadline_s))
                with store_errors():
                    yield connection

    async def connect_writer(self) -> Connection:
        """Open the batching writer's own connection, as the owner of the tables; the caller closes it.

        Raises:
            Unavailable: The store is away.
        """
        return await connect(self.address, name="writer", deadline_s=WRITER_DEADLINE_S)

    async def connect_listener(self) -> Connection:
        """Open the connection for notifications, as the owner of the tables; the caller closes it.

        Raises:
            Unavailable: The store is away.
        """
        return await connect(self.address, name="listener", deadline_s=WRITER_DEADLINE_S)

    async def close(self) -> None:
        """Close all pooled connections; units that do not end within some seconds lose theirs. Twice is fine."""
        for pool in (self._request, self._system):
            await _close_pool(pool)


class Outage:
    """Logs one line when the store goes away and one when it is back, however many ask for it meanwhile."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None

    @contextmanager
    def noticed(self) -> Generator[None]:
        """Let one use of the store tell whether it is there; what it raises passes unchanged."""
        try:
            yield
        except StoreAway as error:
            if self._since is None:
                self._since = self._clock()
                log.warning("store.away", error=type(error.__cause__).__name__)
            raise
        if self._since is not None:
            log.warning("store.back", away_s=round(self._clock() - self._since, 3))
            self._since = None


async def _open_request_pool(address: StoreAddress, size_max: int) -> _Pool:
    try:
        # The role is the session's own from its first moment; the driver's resets cannot leave it.
        return await _open_pool(address, "request", REQUEST_DEADLINE_S, size_max, role=REQUEST_ROLE)
    except (
        asyncpg.InvalidParameterValueError,
        asyncpg.InsufficientPrivilegeError,
        asyncpg.UndefinedTableError,
    ) as error:
        raise StoreError("the store is not prepared for this release", code="store_not_prepared") from error


@asynccontextmanager
async def _unit(pool: _Pool, begin: str, acquire_deadline_s: float) -> AsyncGenerator[Connection]:
    with store_errors():
        async with AsyncExitStack() as stack:
            with store_errors(connecting=True):
                connection = await stack.enter_async_context(pool.acquire(timeout=acquire_deadline_s))
            try:
                await connection.execute(begin)
                yield connection
            except BaseException:
                await _roll_back(connection)
                raise
            # After a failed statement the server answers a COMMIT with a rollback and no error.
            if await connection.execute("COMMIT") != "COMMIT":
                raise RuntimeError("a statement of the unit failed and its error was swallowed")


async def _roll_back(connection: Connection) -> None:
    try:
        await connection.execute("ROLLBACK")
    except _ROLLBACK_FAILED:
        # A lost connection has left the pool already and refuses even this.
        with suppress(asyncpg.InterfaceError):
            connection.terminate()


async def _open_pool(address: StoreAddress, name: str, deadline_s: float, size_max: int, **role: str) -> _Pool:
    return await _create_pool(
        **address.connect_args(),
        min_size=1,
        max_size=size_max,
        timeout=CONNECT_DEADLINE_S,
        command_timeout=deadline_s + 1,
        server_settings={**session_settings(name, deadline_s), **role},
        init=_check_role if role else None,
        reset=_keep_session,
    )


async def _keep_session(connection: Connection) -> None:
    """Spare the driver's round trip for resetting: a unit leaves nothing behind but its transaction's end."""


async def _check_role(connection: Connection) -> None:
    is_restricted = await connection.fetchval("SELECT current_user = $1 AND row_security_active('apps')", REQUEST_ROLE)
    if not is_restricted:
        raise StoreError(f"row-level security does not hold for the role {REQUEST_ROLE}", code="unsafe_store")


async def _close_pool(pool: _Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), _CLOSE_DEADLINE_S)
    except (OSError, TimeoutError, asyncpg.InterfaceError):
        pool.terminate()
