"""Event streams: what has one, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class StreamKind(Enum):
    """What has a stream."""

    JOB = "job"
    APP = "app"
    DEPLOYMENT = "deployment"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class StreamRef:
    """One stream; its key is that of the thing it tells of, so no two streams share one."""

    kind: StreamKind
    key: str
