"""Orgs and their API keys. Tokens never reach the store: it holds keyed digests of them (G17.2)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apothic.wire.ids import KeyId, OrgId
from apothic_server.domain.access import Role
from apothic_server.store.connection import Connection, Record
from apothic_server.store.statements import load

SQL = load("keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A key without its secret.

    Attributes:
        kind: `lk` for people and programs, `lw` for workers.
        prefix: Beginning of the token, for people who look for it.
        last4: Last four characters of the token.
    """

    id: KeyId
    org: OrgId
    kind: str
    name: str
    prefix: str
    last4: str
    role: Role
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


async def count_orgs(connection: Connection) -> int:
    """Return how many orgs the installation has; as the tables' owner."""
    return int(await connection.fetchval(SQL["count_orgs"]))


async def create_org(connection: Connection, org: OrgId, slug: str, now: datetime) -> None:
    """Insert an org; as the tables' owner."""
    await connection.execute(SQL["add_org"], org, slug, now)


async def org_slug(connection: Connection, org: OrgId) -> str | None:
    """Return an org's slug, or None when there is no such org."""
    slug: str | None = await connection.fetchval(SQL["get_org_slug"], org)
    return slug


async def first_org(connection: Connection) -> OrgId | None:
    """Return the org that runs this installation, or None before the first start; as the tables' owner."""
    org: OrgId | None = await connection.fetchval(SQL["first_org"])
    return org


async def insert_key(connection: Connection, key: StoredKey, digest: bytes) -> None:
    """Insert a key under the digest of its token."""
    who = (key.id, key.org, key.kind, digest, key.name, key.prefix, key.last4)
    may = (key.role.value, sorted(key.scopes), key.created_at, key.expires_at)
    await connection.execute(SQL["add_key"], *who, *may)


async def key_by_digest(connection: Connection, digest: bytes) -> StoredKey | None:
    """Return the key of any org whose token has this digest, valid or not; as the tables' owner."""
    return _key(await connection.fetchrow(SQL["find_key"], digest))


async def get_key(connection: Connection, org: OrgId, key: KeyId) -> StoredKey | None:
    """Return a key of the org, valid or not."""
    return _key(await connection.fetchrow(SQL["get_key"], org, key))


async def revoke_key(connection: Connection, org: OrgId, key: KeyId, now: datetime) -> bool:
    """Revoke a key; False when the org has no such key or it was revoked before."""
    return await connection.fetchval(SQL["revoke_key"], org, key, now) is not None


def _key(row: Record | None) -> StoredKey | None:
    if row is None:
        return None
    columns: dict[str, Any] = dict(row.items())
    columns |= {"role": Role(row["role"]), "scopes": frozenset(row["scopes"])}
    return StoredKey(**columns)
