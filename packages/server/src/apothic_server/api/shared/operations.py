"""The operation table of a face: one row per operation drives routing, policy, limits and the check of the document.

A row without a policy cannot be made, and a table with two rows for one request is refused, so a server never starts
with an operation that nobody decided about (G16.4).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response
from apothic_server.domain.access import Actor, Policy

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

Handler = Callable[[Request], Awaitable[Response]]
Upgrade = Callable[[Scope, Receive, Send, Actor], Awaitable[None]]
"""Serves one WebSocket of an authenticated caller; it accepts or closes the connection itself."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class StartRefusedError(Exception):
    """The table contradicts itself; the server must not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One row of the table.

    Attributes:
        id: Stable name, the document's `operationId`.
        path: Literal segments and `{name}` parameters.
        statuses: Every status this operation answers; any other one becomes 500.
        handler: Serves a request; None for an operation that only upgrades.
        upgrade: Serves a WebSocket; None for all other operations.
        body_max: Most bytes of the body; 0 refuses any body.
        accepts: Content types of the body.
        needs_body: False when it may be left out; handlers get an empty one then.
        answers: Content types of a success.
        query: Parameters that the query may hold.
        is_frequent: Data-plane traffic: a success is logged at debug, which is off by default; failures as elsewhere.
        streams: A success may be sent piece by piece.
    """

    id: str
    method: str
    path: str
    policy: Policy
    statuses: frozenset[int]
    handler: Handler | None = None
    upgrade: Upgrade | None = None
    body_max: int = 0
    accepts: tuple[str, ...] = ()
    needs_body: bool = True
    answers: tuple[str, ...] = ("application/json",)
    query: frozenset[str] = frozenset()
    streams: bool = False
    is_frequent: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.policy, Policy):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers too
            raise StartRefusedError(f"operation {self.id} has no policy")
        if self.method not in METHODS or not self.path.startswith("/"):
            raise StartRefusedError(f"operation {self.id} has no valid method and path")
        if (self.handler is None) == (self.upgrade is None):
            raise StartRefusedError(f"operation {self.id} needs either a handler or an upgrade")
        if (self.body_max > 0) != bool(self.accepts):
            raise StartRefusedError(f"operation {self.id} must name both a body limit and content types, or neither")

    @property
    def route(self) -> str:
        """Method and path, the scope of an idempotency key."""
        return f"{self.method} {self.path}"


def operation_table(operations: Iterable[Operation]) -> dict[str, Operation]:
    """Return the operations by id.

    Raises:
        StartRefusedError: Two operations have one id.
    """
    table: dict[str, Operation] = {}
    for operation in operations:
        if operation.id in table:
            raise StartRefusedError(f"two operations are named {operation.id}")
        table[operation.id] = operation
    return table
