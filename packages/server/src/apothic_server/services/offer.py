"""The services as the faces get them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from apothic.wire.tokens import token_kind
from apothic_server.domain.access import Actor
from apothic_server.services.apps import Apps
from apothic_server.services.archives import Archives
from apothic_server.services.attempts import Attempts
from apothic_server.services.deployments import Deployments
from apothic_server.services.enrolment import Enrolment
from apothic_server.services.environments import Environments
from apothic_server.services.groups import Groups
from apothic_server.services.health import Health
from apothic_server.services.jobs import Jobs
from apothic_server.services.keys import Keys
from apothic_server.services.metrics import Metrics
from apothic_server.services.schedules import Schedules
from apothic_server.services.stats import Stats
from apothic_server.services.streams import Streams
from apothic_server.services.values import LargeValues
from apothic_server.services.workers import Workers

_BEARER = b"Bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything the faces ask; `api.shared.services` says what each part promises."""

    keys: Keys
    attempts: Attempts
    apps: Apps
    deployments: Deployments
    environments: Environments
    archives: Archives
    values: LargeValues
    jobs: Jobs
    groups: Groups
    stats: Stats
    streams: Streams
    schedules: Schedules
    workers: Workers
    enrolment: Enrolment
    health: Health
    metrics: Metrics

    async def authenticate(self, token: str, attempt: str) -> Actor:
        """Return who holds a well-formed token: a key, a worker, a join token, or the attempt that `attempt` names."""
        kind = token_kind(token)
        if kind == "lj":
            return await self.attempts.authenticate(token, attempt)
        if kind == "li":
            return await self.enrolment.authenticate(token)
        return await self.keys.authenticate(token)

    def recognise(self, authorization: bytes) -> Actor | None:
        """Return who holds the API key of a header, if that was looked up a moment ago; None for all others."""
        if not authorization.startswith(_BEARER):
            return None
        return self.keys.known(authorization[len(_BEARER) :].decode("latin-1"))

    def over(self, actor: Actor) -> asyncio.Future[None] | None:
        """Return what is done when the attempt of `actor` is over; None when it is no user code."""
        return self.attempts.over(actor)
