"""Environments that workers make ready: what they say of it, and its log in the stream of the deployment.

Only memory knows which worker has which environment; a worker that dials in is asked again. The log is written by a
loop, because the board may not wait; it is in the stream before a job of it can be seen to start or fail.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable

from apothic.wire.ids import DeploymentId, OrgId
from apothic.wire.images import BUILD_LINE_MAX, BUILD_LINES_MAX, BuildLines, Prepared
from apothic_server.domain.fleet import EnvironmentKey, Worker
from apothic_server.domain.jobs import StreamEvent
from apothic_server.services.deployment_events import deployment_stream
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.grants import Grants
from apothic_server.store import streams
from apothic_server.store.database import Database

UNWRITTEN_MAX = 20_000
"""Events that wait for the store; more are dropped."""

FOLLOWED_MAX = 1_000
MESSAGE_MAX = 4_000
_EVENTS_AT_ONCE = 200


class Builds:
    """Acts on what workers say of environments.

    Args:
        changed: Told the key of a stream that something was committed to.
    """

    def __init__(self, database: Database, board: Board, grants: Grants, changed: Callable[[str], None]) -> None:
        self._database = database
        self._board = board
        self._grants = grants
        self._changed = changed
        self._unwritten: deque[tuple[OrgId, DeploymentId, StreamEvent]] = deque()
        self._then: deque[tuple[int, Worker, EnvironmentKey]] = deque()
        self._said = self._written = 0
        self._next_line: OrderedDict[EnvironmentKey, int] = OrderedDict()

    def lines(self, worker: Worker, item: BuildLines) -> None:
        """Put the lines of a build that are new into the stream of its deployment."""
        build = (DeploymentId(item.deployment), item.environment)
        asked = worker.environments.get(build)
        if asked is None or not 0 <= item.first <= BUILD_LINES_MAX:
            return
        known = self._next_line.get(build, 0)
        lines = item.lines[max(0, known - item.first) : BUILD_LINES_MAX + 1 - item.first]
        self._next_line[build] = max(known, item.first + len(item.lines))
        self._next_line.move_to_end(build)
        if len(self._next_line) > FOLLOWED_MAX:
            self._next_line.popitem(last=False)
        for line in lines:
            text = line.replace("\0", "\N{REPLACEMENT CHARACTER}")[:BUILD_LINE_MAX]
            self._say(asked.org, build, "deployment.build_log", worker=worker.name, environment=build[1], line=text)

    def prepared(self, worker: Worker, item: Prepared) -> None:
        """An environment is there, or will not be: runners may be started, and say it in the second case."""
        build = (DeploymentId(item.deployment), item.environment)
        asked = worker.environments.get(build)
        if asked is None or asked.is_answered:
            return
        asked.is_answered = True
        told = {"worker": worker.name, "environment": item.environment}
        if item.error is not None:
            asked.error, asked.failed_at = item.error, self._board.clock.monotonic()
            message = item.error.message.replace("\0", "\N{REPLACEMENT CHARACTER}")[:MESSAGE_MAX]
            self._say(asked.org, build, "deployment.build_failed", **told, message=message)
        elif item.took_ms > 0:
            self._say(asked.org, build, "deployment.built", **told, took_ms=item.took_ms)
        self._next_line.pop(build, None)
        if self._said == self._written:
            self._ready(worker, build)
        else:
            self._then.append((self._said, worker, build))

    async def step(self) -> float | None:
        """Write what was said, in order, then let runners start."""
        while self._unwritten:
            org, deployment, _ = self._unwritten[0]
            events: list[StreamEvent] = []
            for _, key, event in itertools.islice(self._unwritten, _EVENTS_AT_ONCE):
                if key != deployment:
                    break
                events.append(event)
            await self._write(org, deployment, events)
            for _ in events:
                self._unwritten.popleft()
            self._written += len(events)
            self._changed(deployment)
            while self._then and self._then[0][0] <= self._written:
                _, worker, build = self._then.popleft()
                self._ready(worker, build)
        return None

    async def _write(self, org: OrgId, deployment: DeploymentId, events: list[StreamEvent]) -> None:
        stream = deployment_stream(deployment)
        async with self._database.request_unit(org) as unit:
            held = await streams.hold(unit, org, stream)
            if held is not None and not held[1]:  # that of a deleted deployment has ended
                await streams.append(unit, org, stream, events)

    def _ready(self, worker: Worker, build: EnvironmentKey) -> None:
        asked = worker.environments.get(build)
        if asked is not None:
            asked.is_done = True
            self._grants.grant_ready()

    def _say(self, org: OrgId, build: EnvironmentKey, kind: str, **data: str | int) -> None:
        if len(self._unwritten) >= UNWRITTEN_MAX:
            return
        now = self._board.clock.now()
        self._unwritten.append((org, build[0], StreamEvent(kind, now, {**data, "time": now.timestamp()})))
        self._said += 1
        self._board.hints.builds()
