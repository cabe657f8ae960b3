"""Repeats of requests that carry an idempotency key: what the first one did, and keys that are at work (G6.1 to G6.3).

A key is taken in the commit of its effect and by nothing else, so a crash leaves either both or neither, and no lock
outlives its holder: a call's row is in its job's insert, which the store refuses when the row is there already; any
other request holds a lock of its transaction.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from apothic.wire.ids import OrgId
from apothic_server.domain.access import Actor
from apothic_server.domain.errors import KeyInProgress, KeyReused
from apothic_server.domain.idempotency import Keep, KeptAnswer, KeyRow, RequestKey, T
from apothic_server.domain.views import Submitted
from apothic_server.ports.clock import Clock
from apothic_server.store import idempotency as rows
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database


@dataclass(slots=True)
class _Claim:
    """A key in the hands of one request; `told` gets its call, or None when it made none; or its call, made at once."""

    fingerprint: bytes
    told: asyncio.Future[Submitted | None] | Submitted


class Repeats:
    """Keys of calls that are on their way to the store, and rows of those that arrived."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._claims: dict[tuple[OrgId, bytes], _Claim] = {}

    async def claim(self, actor: Actor, key: RequestKey) -> Submitted | None:
        """Take a key for a call until `release`; return the call instead that another request has made with it.

        Raises:
            KeyReused: It is another call.
        """
        place = (actor.org, key.digest)
        while (claim := self._claims.get(place)) is not None:
            check_same(key, claim.fingerprint)
            call = claim.told if isinstance(claim.told, Submitted) else await asyncio.shield(claim.told)
            if call is not None:
                return replace(call, is_replay=True)
        self._claims[place] = _Claim(key.fingerprint, asyncio.get_running_loop().create_future())
        return None

    def release(self, actor: Actor, key: RequestKey, call: Submitted | None) -> None:
        """Give a claimed key back: now, or once the call's job is durable and the store knows the key."""
        place = (actor.org, key.digest)
        claim = self._claims[place]
        assert isinstance(claim.told, asyncio.Future)
        claim.told.set_result(call)
        if call is None:
            del self._claims[place]
        else:
            call.accepted.add_done_callback(lambda _: self._claims.pop(place, None))

    def is_new(self, actor: Actor, key: RequestKey) -> bool:
        """Whether no call with this key is under way, and the caller says that there never was one."""
        return key.is_first and (actor.org, key.digest) not in self._claims

    def made(self, actor: Actor, key: RequestKey, call: Submitted) -> None:
        """A call was made at once with a new key; until the store knows the key, others who bring it get that call."""
        place = (actor.org, key.digest)
        self._claims[place] = _Claim(key.fingerprint, call)
        call.accepted.add_done_callback(lambda _: self._claims.pop(place, None))

    async def find(self, actor: Actor, key: RequestKey) -> KeyRow | None:
        """Return what an earlier request with this key did, or None.

        Raises:
            KeyReused: It asked for something else.
        """
        async with self._database.request_unit(actor.org) as unit:
            row = await rows.find_key(unit, actor.org, key)
        if row is not None:
            check_same(key, row.fingerprint)
        return row


async def held(unit: Connection, actor: Actor, keep: Keep[T] | None) -> KeptAnswer | None:
    """Take the request's key for this transaction; return the answer instead when an earlier request took effect.

    Raises:
        KeyInProgress: Another transaction has it.
        KeyReused: The earlier request asked for something else.
    """
    if keep is None:
        return None
    if not await rows.lock_key(unit, actor.org, keep.key):
        raise KeyInProgress("another request with this key is at work; ask again", retry_after_s=1)
    row = await rows.find_key(unit, actor.org, keep.key)
    if row is None:
        return None
    check_same(keep.key, row.fingerprint)
    return row.answer


async def keep_result(unit: Connection, actor: Actor, keep: Keep[T] | None, result: T, clock: Clock) -> None:
    """Keep the answer that tells `result`, in the transaction of the effect."""
    if keep is not None:
        await rows.add_key(unit, actor.org, keep.row(result), clock.now())


def check_same(key: RequestKey, fingerprint: bytes) -> None:
    """Raises: KeyReused, unless the key was used for the same request before."""
    if key.fingerprint != fingerprint:
        raise KeyReused("this idempotency key was used for another request; every request needs a key of its own")
