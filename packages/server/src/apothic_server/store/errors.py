"""Failures of the store: what stops a start, and the one place that turns a driver's errors into `Unavailable`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import asyncpg

from apothic_server.domain.errors import PlatformError, Unavailable

RETRY_AFTER_S = 1

_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    # What the driver makes of a server that said goodbye while nothing was asked of it.
    asyncpg.InternalClientError,
    ConnectionError,
    EOFError,
)
_BUSY = (
    asyncpg.QueryCanceledError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    TimeoutError,
)


class StoreAway(Unavailable):
    """There is no connection to the store: it was refused or lost, or the server of the database starts or stops."""


class StoreError(PlatformError):
    """The store cannot be used as it is, and somebody has to change something; the server does not start.

    Codes: `data_folder_owner`, `data_folder_foreign`, `data_folder_version`, `data_folder_busy`,
    `data_folder_unusable`, `disk_full`, `store_binaries_missing`, `store_identity`, `store_start_failed`, `store_url`,
    `unsafe_store`, `store_role_missing`, `store_not_prepared`,
    `migration_changed`, `store_newer`.
    """

    code = "store_start_failed"


@contextmanager
def store_errors(*, connecting: bool = False) -> Generator[None]:
    """Turn a store that is away or overloaded into `Unavailable`; everything else passes unchanged.

    A transaction whose COMMIT was under way may have been applied all the same; nothing else was.

    Args:
        connecting: Only a connection is being made, so every operating system error means that the store is away, and
            a refusal of the credentials means it too.

    Raises:
        Unavailable: The connection was refused or lost, the server starts, stops or recovers, it is out of room, or a
            deadline passed.
    """
    try:
        yield
    except _BUSY as error:
        raise Unavailable("the store did not answer in time", retry_after_s=RETRY_AFTER_S) from error
    except _AWAY as error:
        raise _away() from error
    except asyncpg.InterfaceError as error:
        if _is_closed(error):
            raise _away() from error
        raise
    except (OSError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        if connecting:
            raise _away() from error
        raise


def _away() -> StoreAway:
    return StoreAway("the store is away", retry_after_s=RETRY_AFTER_S)


def _is_closed(error: asyncpg.InterfaceError) -> bool:
    # The driver uses this class for its callers' mistakes as well; only the text tells them apart. A connection that is
    # lost in a unit counts as released at once.
    text = str(error)
    return any(word in text for word in ("closed", "closing", "released back to the pool"))
