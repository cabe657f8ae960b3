"""Who acts, and what a role and a scope allow (G16.3).

Rights of a request = rights of the role ∩ scopes of the key. An operation names one scope; `may` answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from apothic.wire.ids import AppId, JobId, KeyId, OrgId
from apothic_server.domain.groups import caller_name, row_of_caller

AREAS = ("jobs", "apps", "services", "storage", "secrets", "queues", "keys", "billing", "org", "vms", "inference")
SCOPES = frozenset(f"{area}:{right}" for area in AREAS for right in ("read", "write"))
ATTEMPT_SCOPES = frozenset(
    {"apps:read", "jobs:read", "jobs:write", "queues:read", "queues:write", "storage:read", "storage:write"}
)
"""All that user code may ever do with the token of its attempt; never keys, members, billing, secrets or deploys."""

READ_SCOPES = frozenset(scope for scope in SCOPES if scope.endswith(":read"))


class Role(Enum):
    """A member's role; `worker` belongs to machines and reaches the worker link only, `join` to their join tokens."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"
    BILLING = "billing"
    WORKER = "worker"
    JOIN = "join"


ROLE_SCOPES: dict[Role, frozenset[str]] = {
    Role.OWNER: SCOPES,
    Role.ADMIN: SCOPES - {"billing:write"},
    Role.MEMBER: SCOPES - {"billing:read", "billing:write", "keys:write", "org:write"},
    Role.VIEWER: READ_SCOPES - {"billing:read", "keys:read"},
    Role.BILLING: frozenset({"billing:read", "billing:write", "org:read"}),
    Role.WORKER: frozenset(),
    Role.JOIN: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """User code as a caller: the attempt that it runs in.

    Attributes:
        job: The job; jobs made by it name it as their parent, see `parent`.
        fence: Fence of the grant; the credential ends with it.
        app: The app of its deployment.
        depth: Depth of the job: 0 when no other job called it.
        item: Number of the item of a map that calls, when the job is a chunk of several and says so.
    """

    job: JobId
    fence: int
    app: AppId
    depth: int
    item: int | None = None

    @property
    def parent(self) -> JobId:
        """What jobs and groups that it makes have as their parent."""
        return caller_name(self.job, self.item)


@dataclass(frozen=True, slots=True)
class Actor:
    """The authenticated caller of one request.

    Attributes:
        org: The org that the request reads and writes; every query carries it.
        key: The key that authenticated, also recorded as `created_by`.
        role: The key's role in the org.
        scopes: The key's scopes; not yet cut by the role.
        is_operator: The org runs this installation (the first org).
        attempt: Set when the caller is user code; `key` is then the one that its job was called with, whose role and
            scopes are the most it has.
    """

    org: OrgId
    key: KeyId
    role: Role
    scopes: frozenset[str]
    is_operator: bool = False
    attempt: Attempt | None = None

    def may(self, scope: str) -> bool:
        """Whether role and key both allow `scope`."""
        return scope in self.scopes and scope in ROLE_SCOPES[self.role]

    def sees(self, app: AppId, parent: JobId | None) -> bool:
        """Whether a job of the org exists for the actor: for user code those of its app and those that its job called.

        Args:
            app: The job's app.
            parent: The job whose user code called it.
        """
        if self.attempt is None or app == self.attempt.app:
            return True
        return parent is not None and row_of_caller(parent) == self.attempt.job


class Audience(Enum):
    """Who may use an operation at all, before scopes count."""

    PUBLIC = "public"
    KEY = "key"
    WORKER = "worker"
    JOIN = "join"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Policy:
    """Policy row of one operation. With `Audience.KEY` and `OPERATOR` a scope is required.

    Attributes:
        attempts: User code may use it too, with the token of its attempt.
    """

    audience: Audience
    scope: str | None = None
    attempts: bool = False

    def __post_init__(self) -> None:
        if self.attempts and (self.audience is not Audience.KEY or self.scope not in ATTEMPT_SCOPES):
            raise ValueError(f"policy {self} opens to user code what it may never do")
        needs_scope = self.audience in (Audience.KEY, Audience.OPERATOR)
        if needs_scope != (self.scope is not None) or (self.scope is not None and self.scope not in SCOPES):
            raise ValueError(f"policy {self} names no valid scope")

    def refusal(self, actor: Actor) -> str | None:
        """Return the sentence that refuses `actor`, or None when the operation is open to them."""
        if actor.attempt is not None and not self.attempts:
            return "User code may not do this; use a key where the call comes from."
        if self.audience is Audience.WORKER:
            return _worker_refusal(actor)
        if self.audience is Audience.JOIN and actor.role is not Role.JOIN:
            return "Only a join token may do this: make one with `apothic worker token`."
        if self.audience is Audience.OPERATOR and not actor.is_operator:
            return "Only the org that runs this installation may do this."
        if self.scope is not None and not actor.may(self.scope):
            return f"This key lacks the right {self.scope}."
        return None


def _worker_refusal(actor: Actor) -> str | None:
    """A worker gets jobs and archives of all orgs, so only the org that runs the installation may enrol one."""
    if actor.role is not Role.WORKER:
        return "Only a worker's token may do this."
    return None if actor.is_operator else "Only workers of the org that runs this installation may do this."
