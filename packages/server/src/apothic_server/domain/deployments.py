"""The life of a deployment: what may be stopped and deleted, and what that does to its jobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from apothic.wire.ids import DeploymentId
from apothic.wire.values import RemoteError


class DeploymentStatus(Enum):
    """`active` takes calls; all others take none and differ in what may still happen to them."""

    ACTIVE = "active"
    SUPERSEDED = "superseded"
    STOPPED = "stopped"
    DELETED = "deleted"


class Drain(Enum):
    """What becomes of the running jobs of a deployment that was closed; its waiting jobs always end."""

    FINISH = "finish"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Closed:
    """A deployment that was stopped or deleted and may have unfinished jobs."""

    deployment: DeploymentId
    status: DeploymentStatus
    drain: Drain

    @property
    def error(self) -> RemoteError:
        """Why its waiting jobs end (J12)."""
        verb = self.status.value
        detail = f"the deployment was {verb} before the job ran"
        return RemoteError("apothic.DeploymentEnded", detail, code=f"deployment_{verb}")


@dataclass(frozen=True, slots=True)
class DeploymentEntry:
    """A deployment in a list."""

    id: DeploymentId
    app_name: str
    version: int
    status: str
    created_at: datetime
    stopped_at: datetime | None
    restored_from: int | None = None
