"""Closing: deployments that were stopped or deleted take no calls; what waits ends, what runs finishes or is cancelled.

The store says which deployments are closed and what is left to do (`deployments.drain`); the sweep reads it, so a stop
that another process committed, or this one before it died, is carried out all the same.
"""

from __future__ import annotations

import asyncio

from apothic.wire.ids import DeploymentId
from apothic_server.domain.deployments import Closed, Drain
from apothic_server.services.dispatch.board import Board, Settled
from apothic_server.services.dispatch.calls import Calls
from apothic_server.services.dispatch.endings import Endings
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.live import LiveJob
from apothic_server.services.dispatch.maps import Maps
from apothic_server.store import deployments as rows
from apothic_server.store.database import Database


class Closing:
    """Carries out what was decided about closed deployments."""

    def __init__(
        self, database: Database, board: Board, calls: Calls, endings: Endings, grants: Grants, maps: Maps
    ) -> None:
        self._maps = maps
        self._database = database
        self._board = board
        self._calls = calls
        self._endings = endings
        self._grants = grants
        self._draining: list[Closed] = []

    async def read(self) -> None:
        """Learn from the store what is closed; from then on nothing of it is taken or granted."""
        async with self._database.system_read() as unit:
            self._draining = await rows.list_draining(unit)
        for closed in self._draining:
            self._board.closed[closed.deployment] = closed

    async def carry_out(self) -> None:
        """Do what is left to do for the deployments that `read` found."""
        for closed in self._draining:
            self.apply(closed)
            if not self.unfinished(closed.deployment) and not self._maps.has(closed.deployment):
                async with self._database.system_unit() as unit:
                    await rows.end_drain(unit, closed.deployment)

    def apply(self, closed: Closed) -> list[asyncio.Future[Settled]]:
        """End the deployment's waiting jobs, cancel its running ones if asked for, and stop its idle runners.

        Returns:
            A future of the commit of each cancel.
        """
        self._board.closed[closed.deployment] = closed
        self._maps.close_deployment(closed)
        asked: list[asyncio.Future[Settled]] = []
        for job in self.unfinished(closed.deployment):
            if job.waits:
                self._endings.fail_closed(job)
            elif closed.drain is Drain.CANCEL:
                asked.append(self._calls.cancel(job))
        for runner in list(self._board.fleet.runners.values()):
            if runner.group[0] == closed.deployment and runner.is_idle:
                self._grants.stop_runner(runner)
        self._grants.grant_ready()
        return asked

    def admit(self, job: LiveJob) -> None:
        """A job that waits was read from the store: end it if its deployment is closed."""
        self._endings.fail_closed(job)

    def unfinished(self, deployment: DeploymentId) -> list[LiveJob]:
        """Return the deployment's jobs in memory that have not ended."""
        jobs = self._board.jobs.values()
        return [job for job in jobs if job.function.deployment == deployment and not job.status.is_final]
