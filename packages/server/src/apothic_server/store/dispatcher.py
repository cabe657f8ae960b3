"""The dispatcher's row: who dispatches, and under which term (D4). All functions need the tables' owner.

A term is taken when the last one has expired or was released, or by its own holder again; each taking raises it. Grants
carry the term, and the batching writer's statements refuse records of any other term than the one in this row. Times
are the store's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from apothic_server.store.connection import Connection
from apothic_server.store.statements import load

SQL = load("dispatcher")

LEASE = timedelta(seconds=5)
"""How long a term lasts without being renewed."""


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Who dispatches now; nobody does unless `is_live`."""

    term: int
    holder: str
    url: str
    is_live: bool


async def take_term(connection: Connection, *, holder: str, url: str, lease: timedelta = LEASE) -> int | None:
    """Become the dispatcher.

    Args:
        holder: Names this process; no other process ever uses it.
        url: Where workers reach this process.
        lease: How long the term lasts without being renewed.

    Returns:
        The new term, or None while another holder's term lasts.
    """
    term: int | None = await connection.fetchval(SQL["take_term"], holder, url, lease)
    return term


async def renew_term(connection: Connection, *, term: int, holder: str, lease: timedelta = LEASE) -> bool:
    """Extend one's own term, also an expired one that nobody took; False when it was taken over."""
    return await connection.fetchval(SQL["renew_term"], term, holder, lease) is not None


async def release_term(connection: Connection, *, term: int, holder: str) -> bool:
    """Give one's term back, so that another process need not wait; False when it was taken over."""
    return await connection.fetchval(SQL["release_term"], term, holder) is not None


async def get_dispatcher(connection: Connection) -> Dispatcher | None:
    """Return who dispatches, or who did last; None before the first term."""
    row = await connection.fetchrow(SQL["get_dispatcher"])
    return None if row is None else Dispatcher(row["term"], row["holder"], row["url"], row["is_live"])
