"""User code as a caller: the tokens of attempts (G17.1).

A token is derived, not stored: from the server's pepper, the worker's incarnation, the job and the fence. It is checked
against the pepper before anything is looked up, and then against the job: the attempt must be the current one.
"""

from __future__ import annotations

import hmac

from apothic.wire.ids import IncarnationId, JobId, KeyId, OrgId
from apothic.wire.tokens import AttemptName, attempt_token, parse_attempt_name, worker_attempt_key
from apothic_server.domain.access import ATTEMPT_SCOPES, Actor, Attempt, Role
from apothic_server.domain.errors import Fenced, Unauthenticated, Unavailable
from apothic_server.domain.jobs import JobStatus
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.live import LiveJob
from apothic_server.store import recovery as rows
from apothic_server.store.database import Database

KEYS_REMEMBERED_MAX = 10_000
EXECUTING = (JobStatus.STARTING, JobStatus.RUNNING, JobStatus.CANCELLING)


class Attempts:
    """Tells workers the keys of their attempts' tokens and recognises those tokens.

    Args:
        pepper: Server secret of at least 32 bytes, the same on every server of an installation.
    """

    def __init__(self, database: Database, board: Board, *, pepper: bytes) -> None:
        self._database = database
        self._board = board
        self._pepper = pepper
        self._keys: dict[str, str] = {}

    def key_of(self, incarnation: IncarnationId) -> str:
        """Return the key under which the tokens of this incarnation's attempts are derived."""
        key = self._keys.get(incarnation)
        if key is None:
            if len(self._keys) >= KEYS_REMEMBERED_MAX:
                self._keys.clear()
            key = self._keys[incarnation] = worker_attempt_key(self._pepper, incarnation)
        return key

    async def authenticate(self, token: str, name: str) -> Actor:
        """Return the actor of an attempt.

        Args:
            token: Well-formed, of the kind `lj`.
            name: What the request says of the attempt, unchecked.

        Raises:
            Unauthenticated: The token is not that of this attempt.
            Fenced: The attempt is over.
            Unavailable: Only the process that dispatches knows the attempt by now.
        """
        attempt = parse_attempt_name(name)
        if attempt is None or not self._is_genuine(token, attempt):
            raise Unauthenticated("The token does not belong to the attempt that the request names.")
        live = self._board.jobs.get(JobId(attempt.job))
        actor = await self._stored(attempt) if live is None else _remembered(live, attempt)
        if actor is None:
            self._board.fenced_reports += 1
            raise Fenced("The attempt that calls is over: it has ended or was taken over.")
        return actor

    def _is_genuine(self, token: str, attempt: AttemptName) -> bool:
        key = self.key_of(IncarnationId(attempt.incarnation))
        return hmac.compare_digest(attempt_token(key, attempt.job, attempt.fence), token)

    async def _stored(self, attempt: AttemptName) -> Actor | None:
        """A job that this process does not hold: another one dispatches, or it has ended."""
        async with self._database.system_unit() as unit:
            row = await rows.any_job(unit, JobId(attempt.job))
        if not self._board.dispatches and (row is None or row.fence < attempt.fence):
            # User code of a blocking call starts before its grant is on disk (D9).
            raise Unavailable("the attempt that calls is not known here yet; try again", retry_after_s=1)
        if row is None or (row.worker, row.fence) != (attempt.incarnation, attempt.fence):
            return None
        return _actor(row.org, row.created_by, Attempt(row.id, row.fence, row.app, row.depth), row.status)


def _remembered(live: LiveJob, attempt: AttemptName) -> Actor | None:
    if (live.worker, live.fence) != (attempt.incarnation, attempt.fence):
        return None
    return _actor(live.org, live.created_by, Attempt(live.id, live.fence, live.function.app, live.depth), live.status)


def _actor(org: OrgId, key: KeyId, attempt: Attempt, status: JobStatus) -> Actor | None:
    if status not in EXECUTING:
        return None
    return Actor(org, key, Role.MEMBER, ATTEMPT_SCOPES, attempt=attempt)
