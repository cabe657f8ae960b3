"""API keys: made once, shown once, stored as a keyed digest; who a token is (G17.1, G17.2)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from apothic.wire.ids import KeyId, OrgId
from apothic.wire.tokens import new_token, token_kind
from apothic_server.domain.access import ROLE_SCOPES, Actor, Role
from apothic_server.domain.errors import Unauthenticated
from apothic_server.domain.views import KeyInfo
from apothic_server.ports.clock import Clock
from apothic_server.store import keys as rows
from apothic_server.store.database import Database

RECHECK_S = 4.0
"""An authentication is remembered this long, so that a revocation acts within 5 s (G17.2)."""

REMEMBERED_MAX = 10_000
UNKNOWN = "the API key is missing, malformed, unknown, expired or revoked; send `Authorization: Bearer lk_…`"


@dataclass(frozen=True, slots=True)
class _Known:
    actor: Actor
    checked_at: float


class Keys:
    """Authenticates tokens and makes new ones.

    Args:
        pepper: Server secret of at least 32 bytes; without it a stored digest cannot be tried.
    """

    def __init__(self, database: Database, clock: Clock, *, pepper: bytes, new_key: Callable[[], str]) -> None:
        self._database = database
        self._clock = clock
        self._pepper = pepper
        self._new_key = new_key
        self._known: dict[bytes, _Known] = {}
        self._digests: dict[str, bytes] = {}
        self._holders: dict[KeyId, _Known] = {}

    async def authenticate(self, token: str) -> Actor:
        """Return the actor of a token.

        Raises:
            Unauthenticated: For every reason alike.
        """
        known = self.known(token)
        if known is not None:
            return known
        if token_kind(token) not in ("lk", "lw"):
            raise Unauthenticated(UNKNOWN)
        digest, now = self._digest(token), self._clock.monotonic()
        actor = await self._look_up(digest)
        if len(self._digests) >= REMEMBERED_MAX:  # it has those of revoked keys, too
            self._known.clear()
            self._digests.clear()
        self._known[digest] = _Known(actor, now)
        self._digests[token] = digest
        return actor

    def known(self, token: str) -> Actor | None:
        """Return the actor of a token that was looked up less than `RECHECK_S` ago; None for every other text."""
        known = self._known.get(self._digests.get(token, b""))
        if known is None or self._clock.monotonic() - known.checked_at >= RECHECK_S:
            return None
        return known.actor

    async def holder(self, org: OrgId, key: KeyId) -> Actor:
        """Return the actor of a key that a job was called with, for the code of that job; never an operator.

        Raises:
            Unauthenticated: It was revoked or has expired since.
        """
        known, now = self._holders.get(key), self._clock.monotonic()
        if known is not None and known.actor.org == org and now - known.checked_at < RECHECK_S:
            return known.actor
        async with self._database.request_unit(org) as unit:
            row = await rows.get_key(unit, org, key)
        if row is None or not row.is_valid(self._clock.now()):
            raise Unauthenticated("the API key that this job was called with is no longer valid")
        if len(self._holders) >= REMEMBERED_MAX:
            self._holders.clear()
        actor = Actor(org, key, row.role, row.scopes)
        self._holders[key] = _Known(actor, now)
        return actor

    async def describe(self, actor: Actor) -> KeyInfo:
        """Return what the caller may see of its own key."""
        async with self._database.request_unit(actor.org) as unit:
            key = await rows.get_key(unit, actor.org, actor.key)
            slug = await rows.org_slug(unit, actor.org)
        if key is None or slug is None:
            raise Unauthenticated(UNKNOWN)
        return KeyInfo(slug, key.id, key.name, key.prefix, key.last4)

    async def create(self, org: OrgId, *, name: str, role: Role) -> str:
        """Make a key with all scopes its role can use and return its token, which is shown never again."""
        token = new_token("lw" if role is Role.WORKER else "lk")
        key = rows.StoredKey(
            id=KeyId(self._new_key()),
            org=org,
            kind=token[:2],
            name=name,
            prefix=token[:7],
            last4=token[-4:],
            role=role,
            scopes=ROLE_SCOPES[role],
            created_at=self._clock.now(),
        )
        async with self._database.system_unit() as unit:
            await rows.insert_key(unit, key, self._digest(token))
        return token

    async def revoke(self, token: str) -> None:
        """Revoke the key of a token, if it is one; it stops working at once in this process, within 5 s in others."""
        digest = self._digest(token)
        async with self._database.system_unit() as unit:
            key = await rows.key_by_digest(unit, digest)
            if key is not None:
                await rows.revoke_key(unit, key.org, key.id, self._clock.now())
                self._holders.pop(key.id, None)
        self._known.pop(digest, None)

    def forget(self, key: KeyId) -> None:
        """A key was revoked by other means: look it up again."""
        for digest in [digest for digest, known in self._known.items() if known.actor.key == key]:
            del self._known[digest]

    async def _look_up(self, digest: bytes) -> Actor:
        async with self._database.system_unit() as unit:
            key = await rows.key_by_digest(unit, digest)
            first = await rows.first_org(unit)
        if key is None or not key.is_valid(self._clock.now()):
            raise Unauthenticated(UNKNOWN)
        return Actor(key.org, key.id, key.role, key.scopes, key.org == first)

    def _digest(self, token: str) -> bytes:
        return digest_of_token(self._pepper, token)


def digest_of_token(pepper: bytes, token: str) -> bytes:
    """Return what is stored of a token."""
    return hmac.new(pepper, token.encode(), hashlib.sha256).digest()
