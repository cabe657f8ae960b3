"""Environments that workers make ready: what they say of it, and its log in the stream of the deployment.

Only memory knows which worker has which environment; a worker that dials in is asked again. The log is written by a
loop, because the board may not wait; it is in the stream before a job of it can be seen to start or fail.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

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
_LOG = "deployment.build_log"


class _Said(NamedTuple):
    """An event that waits for the store.

    Attributes:
        line: Number of a line in its build's log, None for other events.
        looks_back: It is the first line of a build that this process heard; a process before may have stored it.
    """

    org: OrgId
    build: EnvironmentKey
    event: StreamEvent
    line: int | None
    looks_back: bool


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
        self._unwritten: deque[_Said] = deque()
        self._then: deque[tuple[int, Worker, EnvironmentKey]] = deque()
        self._said = self._written = 0
        self._term: int | None = None
        self._next_line: OrderedDict[EnvironmentKey, int] = OrderedDict()
        self._stored: dict[EnvironmentKey, int] = {}

    def lines(self, worker: Worker, item: BuildLines) -> None:
        """Put the lines of a build that are new into the stream of its deployment."""
        build = (DeploymentId(item.deployment), item.environment)
        asked = worker.environments.get(build)
        if asked is None or not 0 <= item.first <= BUILD_LINES_MAX:
            return
        if self._term != self._board.term:  # between two terms of this process another one may have stored lines
            self._term = self._board.term
            self._next_line.clear()
        looks_back = build not in self._next_line
        known = self._next_line.get(build, 0)
        begin = max(item.first, known)
        lines = item.lines[begin - item.first : BUILD_LINES_MAX + 1 - item.first]
        self._next_line[build] = max(known, item.first + len(item.lines))
        self._next_line.move_to_end(build)
        if len(self._next_line) > FOLLOWED_MAX:
            self._next_line.popitem(last=False)
        told = {"worker": worker.name, "environment": item.environment}
        for number, line in enumerate(lines, begin):
            text = line.replace("\0", "\N{REPLACEMENT CHARACTER}")[:BUILD_LINE_MAX]
            self._say(asked.org, build, _LOG, {**told, "line": text}, line=number, looks_back=looks_back)
            looks_back = False

    def prepared(self, worker: Worker, item: Prepared) -> None:
        """An environment is there, or will not be: runners may be started, and say it in the second case.

        One that is gone again is asked for before another runner is started.
        """
        build = (DeploymentId(item.deployment), item.environment)
        asked = worker.environments.get(build)
        if item.is_gone:
            if asked is not None and asked.is_answered:
                del worker.environments[build]
                self._grants.grant_ready()
            return
        if asked is None or asked.is_answered:
            return
        asked.is_answered = True
        told = {"worker": worker.name, "environment": item.environment}
        if item.error is not None:
            asked.error, asked.failed_at = item.error, self._board.clock.monotonic()
            message = item.error.message.replace("\0", "\N{REPLACEMENT CHARACTER}")[:MESSAGE_MAX]
            self._say(asked.org, build, "deployment.build_failed", {**told, "message": message})
        elif item.took_ms > 0:
            self._say(asked.org, build, "deployment.built", {**told, "took_ms": item.took_ms})
        self._next_line.pop(build, None)
        if self._said == self._written:
            self._ready(worker, build)
        else:
            self._then.append((self._said, worker, build))

    async def step(self) -> float | None:
        """Write what was said, in order, then let runners start."""
        while self._unwritten:
            page = [self._unwritten[0]]
            deployment = page[0].build[0]
            for said in itertools.islice(self._unwritten, 1, _EVENTS_AT_ONCE):
                if said.build[0] != deployment or said.looks_back:
                    break
                page.append(said)
            await self._write(page)
            for said in page:
                self._unwritten.popleft()
                if said.line is None:
                    self._stored.pop(said.build, None)
            self._written += len(page)
            self._changed(deployment)
            while self._then and self._then[0][0] <= self._written:
                _, worker, build = self._then.popleft()
                self._ready(worker, build)
        return None

    async def _write(self, page: list[_Said]) -> None:
        org, build, event, *_ = page[0]
        stream = deployment_stream(build[0])
        async with self._database.request_unit(org) as unit:
            held = await streams.hold(unit, org, stream)
            if held is None or held[1]:
                return  # that of a deleted deployment has ended
            if page[0].looks_back:
                worker = str(event.data["worker"])
                self._stored[build] = await streams.count_build_lines(unit, org, stream, worker, build[1])
            events = [said.event for said in page if said.line is None or said.line >= self._stored.get(said.build, 0)]
            if events:
                await streams.append(unit, org, stream, events)

    def _ready(self, worker: Worker, build: EnvironmentKey) -> None:
        asked = worker.environments.get(build)
        if asked is not None:
            asked.is_done = True
            self._grants.grant_ready()

    def _say(
        self,
        org: OrgId,
        build: EnvironmentKey,
        kind: str,
        data: dict[str, str | int],
        line: int | None = None,
        *,
        looks_back: bool = False,
    ) -> None:
        if len(self._unwritten) >= UNWRITTEN_MAX:
            return
        now = self._board.clock.now()
        event = StreamEvent(kind, now, {**data, "time": now.timestamp()})
        self._unwritten.append(_Said(org, build, event, line, looks_back))
        self._said += 1
        self._board.hints.builds()
