"""What the server says about workers. Apart from the other answers, because only operators pay for its import."""

from __future__ import annotations

from dataclasses import dataclass

from apothic.wire.link import Machine


@dataclass(frozen=True)
class WorkerInfo:
    """One start of a worker; `status` is `live`, `impaired`, `silent` or `ended`, `runners` counts the live ones.

    A silent one has let its lease pass; attempts of it whose function has a longer grace may go on.

    `enrolled` says that the worker has joined with a token; else it was started beside a server.
    """

    worker_id: str
    name: str
    status: str
    connected_at: str
    machine: Machine
    runners: int
    enrolled: bool = False


@dataclass(frozen=True)
class EnrolledWorker:
    """A worker that has joined, over all its starts.

    Attributes:
        status: `live`, `impaired`, `draining`, `offline` or `removed`.
        draining: It gets no new work, now or when it is back.
        jobs: Jobs that it executes; None from a server that does not dispatch.
        worker_id: Its newest start that has not ended.
    """

    name: str
    status: str
    draining: bool
    jobs: int | None
    joined_at: str
    worker_id: str | None


@dataclass(frozen=True)
class JoinToken:
    """A token with which one worker can join until `expires_at`; `join_token_id` names it and is no secret."""

    token: str
    expires_at: str
    join_token_id: str = ""


@dataclass(frozen=True)
class JoinTokenInfo:
    """What a token is known by once it was shown; one that was revoked has expired."""

    join_token_id: str
    created_at: str
    expires_at: str


@dataclass(frozen=True)
class JoinTokens:
    """The tokens that a worker can still join with."""

    items: tuple[JoinTokenInfo, ...]
