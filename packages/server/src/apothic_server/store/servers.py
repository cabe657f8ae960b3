"""The processes of one cloud and their addresses (D4). All functions need the tables' owner; times are the store's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from apothic_server.store.connection import Connection
from apothic_server.store.statements import load

SQL = load("servers")

LEASE = timedelta(seconds=5)
"""A process that did not renew its row for so long counts as gone."""

KEPT = timedelta(hours=1)
"""Rows of processes that are gone are removed after this long."""


@dataclass(frozen=True, slots=True)
class Server:
    """One live process; `url` is where workers and other processes reach it."""

    id: str
    url: str


async def renew_server(connection: Connection, me: Server) -> list[Server]:
    """Say that `me` lives and return all live processes, `me` among them, in the order of their ids.

    The row is written before the others are read, so whoever sees it renewed after his own first commit was seen.
    """
    await connection.execute(SQL["renew_server"], me.id, me.url, LEASE)
    return [Server(row["id"], row["url"]) for row in await connection.fetch(SQL["list_servers"])]


async def store_now(connection: Connection) -> datetime:
    """Return the store's time."""
    now: datetime = await connection.fetchval(SQL["store_now"])
    return now


async def count_unaware(connection: Connection, me: Server, since: datetime) -> int:
    """Return how many other live processes have not read the table since then."""
    return int(await connection.fetchval(SQL["count_unaware"], me.id, since))


async def remove_server(connection: Connection, me: Server) -> None:
    """Take a process that stops off the table, and those that are long gone."""
    await connection.execute(SQL["remove_server"], me.id)
    await connection.execute(SQL["remove_gone"], KEPT)
