"""One connection to the store, with the types that the driver does not declare."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, cast

import asyncpg

from apothic_server.store.address import StoreAddress
from apothic_server.store.errors import store_errors

CONNECT_DEADLINE_S = 5.0

_SETTINGS = {
    # Whatever a role or database has as its default, our commits wait for the disk (G14.1).
    "synchronous_commit": "on",
    "search_path": "public, pg_temp",
    "timezone": "UTC",
    "jit": "off",
    # A unit that hangs must not keep its locks.
    "idle_in_transaction_session_timeout": "60s",
    "lock_timeout": "10s",
}


class Record(Protocol):
    """One row: values by column name or by place."""

    def __getitem__(self, key: str | int) -> Any: ...
    def __len__(self) -> int: ...
    def keys(self) -> Iterable[str]: ...
    def values(self) -> Iterable[Any]: ...
    def items(self) -> Iterable[tuple[str, Any]]: ...
    def get(self, key: str, default: Any = None) -> Any: ...


class Statement(Protocol):
    """A query that the server has parsed already; good for as long as its connection."""

    async def fetch(self, *args: Any, timeout: float | None = None) -> list[Record]: ...
    async def fetchrow(self, *args: Any, timeout: float | None = None) -> Record | None: ...
    async def fetchval(self, *args: Any, column: int = 0, timeout: float | None = None) -> Any: ...


class Connection(Protocol):
    """What we use of `asyncpg.Connection`; pooled connections have it too.

    Times out after the deadline of the connection unless `timeout` (seconds) says otherwise.
    """

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str: ...
    async def executemany(
        self, command: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> None: ...
    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Record]: ...
    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Record | None: ...
    async def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any: ...
    async def copy_from_table(
        self, table_name: str, *, output: Any, columns: Sequence[str] | None = None, timeout: float | None = None
    ) -> str: ...
    async def copy_to_table(
        self, table_name: str, *, source: Any, columns: Sequence[str] | None = None, timeout: float | None = None
    ) -> str: ...
    async def prepare(self, query: str, *, timeout: float | None = None) -> Statement: ...
    async def close(self, *, timeout: float | None = None) -> None: ...
    async def add_listener(self, channel: str, callback: Callable[..., Any]) -> None: ...
    async def remove_listener(self, channel: str, callback: Callable[..., Any]) -> None: ...
    def add_termination_listener(self, callback: Callable[[Connection], Any]) -> None: ...
    def transaction(self) -> AbstractAsyncContextManager[None]: ...
    def is_in_transaction(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def terminate(self) -> None: ...
    def get_server_pid(self) -> int: ...


_connect = cast(
    "Callable[..., Coroutine[Any, Any, Connection]]",
    asyncpg.connect,  # pyright: ignore[reportUnknownMemberType] - the driver declares no types
)


def session_settings(name: str, deadline_s: float) -> Mapping[str, str]:
    """Return the settings that every connection of ours begins with.

    Args:
        name: What the connection is for, shown in `pg_stat_activity`.
        deadline_s: The server stops a statement after so long.
    """
    return {**_SETTINGS, "application_name": f"apothic {name}", "statement_timeout": str(round(deadline_s * 1000))}


async def connect(address: StoreAddress, *, name: str, deadline_s: float) -> Connection:
    """Open one connection as the user of `address`.

    Args:
        name: What the connection is for, shown in `pg_stat_activity`.
        deadline_s: Longest time of one statement, in seconds.

    Raises:
        Unavailable: The server does not answer within `CONNECT_DEADLINE_S`, or refuses.
    """
    with store_errors(connecting=True):
        return await connect_plainly(
            address, server_settings=session_settings(name, deadline_s), command_timeout=deadline_s + 1
        )


async def connect_plainly(address: StoreAddress, **options: Any) -> Connection:
    """Open one connection and let the driver's own errors pass; for those who have to tell them apart."""
    return await _connect(**address.connect_args(), timeout=CONNECT_DEADLINE_S, **options)
