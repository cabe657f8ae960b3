"""How a worker on another host joins: with a token that works once, in exchange for a credential of its own.

Neither secret is stored. A join token is derived from the server's pepper and its row's id, so a repeat of the request
that made it tells it again. A credential is made by the worker, which keeps it before it sends it: when an answer is
lost, the worker sends both secrets again and hears that it has joined.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from apothic.wire.ids import EnrolledId, JoinTokenId, KeyId
from apothic.wire.tokens import derived_token
from apothic_server.domain.access import Actor, Role
from apothic_server.domain.errors import Conflict, TooMany, Unauthenticated, no_such
from apothic_server.domain.idempotency import Keep, KeptAnswer
from apothic_server.domain.views import Joined, JoinToken, JoinTokenView
from apothic_server.ports.clock import Clock
from apothic_server.services.keys import UNKNOWN, digest_of_token
from apothic_server.services.repeats import held, keep_result
from apothic_server.store import enrolment as rows
from apothic_server.store import keys as key_rows
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database

JOIN_TOKENS_MAX = 1_000
"""Join tokens of one org that could still be used."""

ENROLLED_MAX = 1_000
"""Workers of one org."""

EXPIRED_KEPT = timedelta(days=1)
"""So long a token that expired is told to be just that."""


class Enrolment:
    """Makes join tokens and takes them for credentials.

    Args:
        pepper: Server secret of at least 32 bytes, the same on every server of an installation.
    """

    def __init__(self, database: Database, clock: Clock, *, pepper: bytes, new_key: Callable[[], str]) -> None:
        self._database = database
        self._clock = clock
        self._pepper = pepper
        self._new_key = new_key

    async def authenticate(self, token: str) -> Actor:
        """Return the actor of a join token, also of one that was used or has expired: `join` says so.

        Raises:
            Unauthenticated: There is no such token.
        """
        async with self._database.system_unit() as unit:
            found = await rows.token_by_digest(unit, digest_of_token(self._pepper, token))
            first = await key_rows.first_org(unit)
        if found is None:
            raise Unauthenticated(UNKNOWN)
        return Actor(found.org, KeyId(found.id), Role.JOIN, frozenset(), found.org == first)

    async def make_token(
        self, actor: Actor, *, life_s: int, keep: Keep[JoinToken] | None = None
    ) -> JoinToken | KeptAnswer:
        """Make a token that one worker can join with.

        Args:
            life_s: Seconds until it expires.

        Raises:
            TooMany: `JOIN_TOKENS_MAX` tokens could still be used (`too_many_join_tokens`).
        """
        now = self._clock.now()
        made = JoinToken(JoinTokenId(self._new_key()), now + timedelta(seconds=life_s))
        async with self._database.request_unit(actor.org) as unit:
            kept = await held(unit, actor, keep)
            if kept is not None:
                return kept
            await rows.prune_tokens(unit, actor.org, now - EXPIRED_KEPT)
            if await rows.count_tokens(unit, actor.org, now) >= JOIN_TOKENS_MAX:
                detail = f"{JOIN_TOKENS_MAX} join tokens wait to be used; use one of them, or wait until they expire"
                raise TooMany(detail, code="too_many_join_tokens", retry_after_s=60)
            stored = rows.StoredJoinToken(made.id, actor.org, made.expires_at, None)
            digest = digest_of_token(self._pepper, self.token_of(made.id))
            await rows.add_token(unit, stored, digest, created_by=actor.key, now=now)
            await keep_result(unit, actor, keep, made, self._clock)
        return made

    def token_of(self, token: JoinTokenId) -> str:
        """Return the secret of a token that this server made."""
        return derived_token("li", self._pepper, token)

    async def list_tokens(self, actor: Actor) -> list[JoinTokenView]:
        """Return the tokens of the actor's org that a worker could still join with, the oldest first."""
        async with self._database.request_unit(actor.org) as unit:
            return await rows.list_tokens(unit, actor.org, self._clock.now())

    async def revoke_token(self, actor: Actor, token: JoinTokenId) -> JoinTokenView:
        """Have a token expire now. Asking twice changes nothing.

        Raises:
            NotFound: There is no such token, or it expired long ago.
            Conflict: A worker has joined with it already (`join_token_spent`).
        """
        async with self._database.request_unit(actor.org) as unit:
            if await rows.lock_token(unit, actor.org, token) is None:
                raise no_such("join token")
            ended = await rows.end_token(unit, actor.org, token, self._clock.now())
            if ended is None:
                detail = "a worker has joined with this token already; `apothic worker remove` ends the worker"
                raise Conflict(detail, code="join_token_spent")
        return ended

    async def join(
        self, actor: Actor, *, name: str, credential: str, keep: Keep[Joined] | None = None
    ) -> Joined | KeptAnswer:
        """Enrol a worker. The same token, name and credential again are the same worker, and change nothing.

        Args:
            actor: The holder of a join token.
            name: Obeys `WORKER_NAME_RULE`.
            credential: A well-formed worker token that the worker made.

        Raises:
            Unauthenticated: The token was used (`join_token_used`), has expired or was revoked (`join_token_expired`).
            Conflict: The name is taken (`worker_name_taken`), the credential is another worker's (`credential_taken`),
                or there are `ENROLLED_MAX` workers (`too_many_workers`).
        """
        digest = digest_of_token(self._pepper, credential)
        async with self._database.request_unit(actor.org) as unit:
            kept = await held(unit, actor, keep)
            if kept is not None:
                return kept
            token = await rows.lock_token(unit, actor.org, JoinTokenId(actor.key))
            if token is None:
                raise Unauthenticated(UNKNOWN)
            if token.used_by is not None:
                joined = await self._joined_before(unit, token, token.used_by, name, digest)
            else:
                joined = await self._enrol(unit, token, name, credential, digest)
            await keep_result(unit, actor, keep, joined, self._clock)
        return joined

    async def _joined_before(
        self, unit: Connection, token: rows.StoredJoinToken, by: EnrolledId, name: str, digest: bytes
    ) -> Joined:
        worker = await rows.get_enrolled(unit, token.org, by)
        is_same = worker is not None and worker.name == name and worker.removed_at is None
        if worker is None or not is_same or not await rows.has_credential(unit, token.org, by, digest):
            detail = "this join token was used already; make another one with `apothic worker token`"
            raise Unauthenticated(detail, code="join_token_used")
        return Joined(worker.name, worker.joined_at)

    async def _enrol(
        self, unit: Connection, token: rows.StoredJoinToken, name: str, credential: str, digest: bytes
    ) -> Joined:
        org, now = token.org, self._clock.now()
        if token.expires_at <= now:
            detail = "this join token has expired or was revoked; make another one with `apothic worker token`"
            raise Unauthenticated(detail, code="join_token_expired")
        if await rows.count_enrolled(unit, org) >= ENROLLED_MAX:
            raise Conflict(f"this cloud has {ENROLLED_MAX} workers; remove one", code="too_many_workers")
        key = rows.NewCredential(KeyId(self._new_key()), digest, credential[:7], credential[-4:])
        if not await rows.add_credential(unit, org, key, name, now):
            raise Conflict("this credential is another worker's; make a new one", code="credential_taken")
        worker = await rows.add_enrolled(unit, org, EnrolledId(self._new_key()), name, key.id, now)
        if worker is None:
            detail = f"a worker named {name} has joined already; choose another name, or remove that one first"
            raise Conflict(detail, code="worker_name_taken")
        await rows.use_token(unit, org, token.id, worker.id)
        return Joined(worker.name, worker.joined_at)
