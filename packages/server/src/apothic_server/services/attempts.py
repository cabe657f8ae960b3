"""User code as a caller: the tokens of attempts (G17.1).

A token is derived, not stored: from the server's pepper, the worker's incarnation, the job and the fence. It is checked
against the pepper before anything is looked up, and then against the job: the attempt must be the current one. What it
opens is what the key that the job was called with opens, and of that no more than `ATTEMPT_SCOPES`.

Only the process that dispatches serves user code: it alone knows who waits for whom, and sees the end of an attempt in
the moment it comes.
"""

from __future__ import annotations

import asyncio
import hmac

from apothic.wire.ids import IncarnationId, JobId
from apothic.wire.tokens import AttemptName, attempt_token, parse_attempt_name, worker_attempt_key
from apothic_server.domain.access import ATTEMPT_SCOPES, Actor, Attempt
from apothic_server.domain.errors import Fenced, Unauthenticated, Unavailable
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.cordons import REMOVED
from apothic_server.services.dispatch.live import LiveJob
from apothic_server.services.keys import Keys
from apothic_server.store import enrolment
from apothic_server.store import recovery as rows
from apothic_server.store.database import Database

KEYS_REMEMBERED_MAX = 10_000
OVER = "The attempt that calls is over: it has ended or was taken over."


class Attempts:
    """Tells workers the keys of their attempts' tokens and recognises those tokens.

    Args:
        pepper: Server secret of at least 32 bytes, the same on every server of an installation.
    """

    def __init__(self, database: Database, board: Board, keys: Keys, *, pepper: bytes) -> None:
        self._database = database
        self._board = board
        self._keys = keys
        self._pepper = pepper
        self._derived: dict[str, str] = {}

    def key_of(self, incarnation: IncarnationId) -> str:
        """Return the key under which the tokens of this incarnation's attempts are derived."""
        key = self._derived.get(incarnation)
        if key is None:
            if len(self._derived) >= KEYS_REMEMBERED_MAX:
                self._derived.clear()
            key = self._derived[incarnation] = worker_attempt_key(self._pepper, incarnation)
        return key

    async def authenticate(self, token: str, name: str) -> Actor:
        """Return the actor of an attempt.

        Args:
            token: Well-formed, of the kind `lj`.
            name: What the request says of the attempt, unchecked.

        Raises:
            Unauthenticated: The token is not that of this attempt, the key of its job is no longer valid, or the worker
                was removed.
            Fenced: The attempt is over.
            Unavailable: Another process dispatches.
        """
        attempt = parse_attempt_name(name)
        if attempt is None or not self._is_genuine(token, attempt):
            raise Unauthenticated("The token does not belong to the attempt that the request names.")
        if not self._board.dispatches:
            raise Unavailable("another server dispatches, and user code is served there; try again", retry_after_s=1)
        if await self._is_removed(IncarnationId(attempt.incarnation)):
            raise Unauthenticated(REMOVED)
        live = await self._live(attempt)
        if live is None:
            self._board.fenced_reports += 1
            raise Fenced(OVER)
        holder = await self._keys.holder(live.org, live.created_by)
        caller = Attempt(live.id, attempt.fence, live.function.app, live.depth, _item(live, attempt))
        return Actor(live.org, holder.key, holder.role, holder.scopes & ATTEMPT_SCOPES, attempt=caller)

    def over(self, actor: Actor) -> asyncio.Future[None] | None:
        """Return what is done when the attempt of `actor` is over; None when it is no user code. Do not cancel it."""
        attempt = actor.attempt
        return None if attempt is None else self._board.over(attempt.job, attempt.fence)

    def _is_genuine(self, token: str, attempt: AttemptName) -> bool:
        key = self.key_of(IncarnationId(attempt.incarnation))
        return hmac.compare_digest(attempt_token(key, attempt.job, attempt.fence), token)

    async def _is_removed(self, incarnation: IncarnationId) -> bool:
        """Whether an operator removed the worker; after a restart memory has it only when it is back, if ever."""
        worker = self._board.fleet.workers.get(incarnation)
        if worker is not None:
            return worker.is_removed
        async with self._database.system_unit() as unit:
            return await enrolment.is_removed(unit, incarnation)

    async def _live(self, attempt: AttemptName) -> LiveJob | None:
        """Return the job whose current attempt this is; after a restart it is read from the store first."""
        board, key = self._board, JobId(attempt.job)
        if key not in board.jobs and key not in board.ended:
            async with self._database.system_unit() as unit:
                row = await rows.any_job(unit, key)
            if row is None or row.status.is_final or (row.worker, row.fence) != (attempt.incarnation, attempt.fence):
                return None
            if key not in board.jobs and key not in board.ended:
                board.reload(key)
                await board.reloaded(key)
        live = board.jobs.get(key)
        is_current = (
            live is not None and live.is_granted and (live.worker, live.fence) == (attempt.incarnation, attempt.fence)
        )
        return live if is_current else None


def _item(live: LiveJob, attempt: AttemptName) -> int | None:
    """Return the item that calls, if it is one of the job's."""
    covers, item = live.covers, attempt.item
    is_its = item is not None and covers is not None and covers.is_chunk and covers.first <= item < covers.end
    return item if is_its else None
