"""Workers on other hosts: the tokens that they join with, and one row for each that joined."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apothic.wire.ids import EnrolledId, IncarnationId, JoinTokenId, KeyId, OrgId
from apothic_server.domain.views import JoinTokenView
from apothic_server.store.connection import Connection, Record
from apothic_server.store.statements import load

SQL = load("enrolment")


@dataclass(frozen=True, slots=True)
class StoredJoinToken:
    """A join token without its secret; `used_by` is the worker that joined with it."""

    id: JoinTokenId
    org: OrgId
    expires_at: datetime
    used_by: EnrolledId | None


@dataclass(frozen=True, slots=True)
class EnrolledWorker:
    """A worker that joined, over all its starts; `key` is its credential."""

    id: EnrolledId
    org: OrgId
    name: str
    key: KeyId
    is_draining: bool
    joined_at: datetime
    removed_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewCredential:
    """A worker's credential as it is stored."""

    id: KeyId
    digest: bytes
    prefix: str
    last4: str


@dataclass(frozen=True, slots=True)
class ListedWorker:
    """An enrolled worker and its newest start that has not ended."""

    worker: EnrolledWorker
    start: IncarnationId | None
    lease_expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Order:
    """What was ordered of an enrolled worker."""

    is_draining: bool
    is_removed: bool


async def prune_tokens(connection: Connection, org: OrgId, before: datetime) -> None:
    """Delete the join tokens that expired before this time."""
    await connection.execute(SQL["prune_join_tokens"], org, before)


async def count_tokens(connection: Connection, org: OrgId, now: datetime) -> int:
    """Return how many join tokens could still be used."""
    return int(await connection.fetchval(SQL["count_join_tokens"], org, now))


async def add_token(
    connection: Connection, token: StoredJoinToken, digest: bytes, *, created_by: KeyId, now: datetime
) -> None:
    """Insert a join token."""
    await connection.execute(
        SQL["add_join_token"], token.id, token.org, digest, created_by, now, token.expires_at
    )  # fmt: skip


async def list_tokens(connection: Connection, org: OrgId, now: datetime) -> list[JoinTokenView]:
    """Return the join tokens that could still be used, the oldest first."""
    return [JoinTokenView(**dict(row.items())) for row in await connection.fetch(SQL["list_join_tokens"], org, now)]


async def end_token(connection: Connection, org: OrgId, token: JoinTokenId, now: datetime) -> JoinTokenView | None:
    """Have a token expire now, unless it has; None when there is none or a worker has joined with it."""
    row = await connection.fetchrow(SQL["end_join_token"], org, token, now)
    return None if row is None else JoinTokenView(**dict(row.items()))


async def token_by_digest(connection: Connection, digest: bytes) -> StoredJoinToken | None:
    """Return the join token of any org with this digest, used and expired ones too; as the tables' owner."""
    return _token(await connection.fetchrow(SQL["find_join_token"], digest))


async def lock_token(connection: Connection, org: OrgId, token: JoinTokenId) -> StoredJoinToken | None:
    """Return a join token that nobody else can use until this transaction ends."""
    return _token(await connection.fetchrow(SQL["lock_join_token"], org, token))


async def use_token(connection: Connection, org: OrgId, token: JoinTokenId, worker: EnrolledId) -> None:
    """Note who joined with a locked token."""
    await connection.execute(SQL["use_join_token"], org, token, worker)


async def count_enrolled(connection: Connection, org: OrgId) -> int:
    """Return how many workers are enrolled and not removed."""
    return int(await connection.fetchval(SQL["count_enrolled"], org))


async def add_credential(
    connection: Connection, org: OrgId, credential: NewCredential, name: str, now: datetime
) -> bool:
    """Insert a worker's credential; False when another key has the same secret."""
    who = (credential.id, org, credential.digest, name, credential.prefix, credential.last4)
    return await connection.fetchval(SQL["add_credential"], *who, now) is not None


async def add_enrolled(
    connection: Connection, org: OrgId, worker: EnrolledId, name: str, key: KeyId, now: datetime
) -> EnrolledWorker | None:
    """Insert an enrolled worker; None when another one has the name."""
    return _worker(await connection.fetchrow(SQL["add_enrolled"], worker, org, name, key, now))


async def get_enrolled(connection: Connection, org: OrgId, worker: EnrolledId) -> EnrolledWorker | None:
    """Return an enrolled worker, removed or not."""
    return _worker(await connection.fetchrow(SQL["get_enrolled"], org, worker))


async def has_credential(connection: Connection, org: OrgId, worker: EnrolledId, digest: bytes) -> bool:
    """Whether the digest is that of the worker's credential."""
    return await connection.fetchval(SQL["has_credential"], org, worker, digest) is not None


async def enrolled_by_key(connection: Connection, org: OrgId, key: KeyId) -> EnrolledWorker | None:
    """Return the worker whose credential `key` is, removed or not; None for workers that servers start."""
    return _worker(await connection.fetchrow(SQL["find_enrolled_by_key"], org, key))


async def enrolled_by_name(connection: Connection, org: OrgId, name: str) -> EnrolledWorker | None:
    """Return and lock the worker of this name, else the one that had it and was removed last."""
    return _worker(await connection.fetchrow(SQL["find_enrolled_by_name"], org, name))


async def list_enrolled(connection: Connection, org: OrgId, only: EnrolledId | None = None) -> list[ListedWorker]:
    """Return the workers that are not removed, by name, or one of them."""
    rows = await connection.fetch(SQL["list_enrolled"], org, only)
    return [_listed(row) for row in rows]


async def set_draining(connection: Connection, org: OrgId, worker: EnrolledId, *, is_draining: bool) -> None:
    """Say whether a worker gets no new work."""
    await connection.execute(SQL["set_draining"], org, worker, is_draining)


async def remove_enrolled(connection: Connection, org: OrgId, worker: EnrolledId, now: datetime) -> None:
    """Remove a worker; its name is free."""
    await connection.execute(SQL["remove_enrolled"], org, worker, now)


async def orders_of(connection: Connection, workers: list[EnrolledId]) -> dict[EnrolledId, Order]:
    """Return what was ordered of these workers, of all orgs; as the tables' owner."""
    rows = await connection.fetch(SQL["orders_of"], workers)
    return {EnrolledId(row["id"]): Order(row["is_draining"], row["is_removed"]) for row in rows}


async def is_removed(connection: Connection, start: IncarnationId) -> bool:
    """Whether a start is of an enrolled worker that was removed; as the tables' owner."""
    return await connection.fetchval(SQL["is_removed"], start) is not None


async def forget_removed(connection: Connection, *, before: datetime, limit: int) -> None:
    """Delete starts that ended before a time, some at once, and enrolled workers removed before it with their keys.

    As the tables' owner. A worker goes when no start of it is left.
    """
    await connection.execute(SQL["forget_starts"], before, limit)
    await connection.execute(SQL["forget_enrolled"], before)
    await connection.execute(SQL["forget_credentials"], before)


def _token(row: Record | None) -> StoredJoinToken | None:
    return None if row is None else StoredJoinToken(**dict(row.items()))


def _worker(row: Record | None) -> EnrolledWorker | None:
    return None if row is None else EnrolledWorker(**dict(row.items()))


def _listed(row: Record) -> ListedWorker:
    columns: dict[str, Any] = dict(row.items())
    start, expires_at = columns.pop("start"), columns.pop("lease_expires_at")
    return ListedWorker(EnrolledWorker(**columns), start, expires_at)
