"""The gate in front of every handler: head limits, route, token, policy, query and body headers, in this order.

Nothing a handler does happens for a request that fails here. A token is looked up only when its form and checksum are
right (G17.1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from apothic.wire.attempts import ATTEMPT_HEADER
from apothic.wire.limits import HEADER_BLOCK_MAX
from apothic.wire.tokens import token_kind
from apothic_server.api.shared.bodies import announces_body, check_body_headers, check_no_body
from apothic_server.api.shared.idempotency import read_key
from apothic_server.api.shared.operations import Operation, Receive, Scope
from apothic_server.api.shared.query import parse_query
from apothic_server.api.shared.request import Request
from apothic_server.domain.access import Actor, Audience, Policy
from apothic_server.domain.errors import Forbidden, TooLarge, Unauthenticated

Authenticate = Callable[[str, str], Awaitable[Actor]]
"""Takes a well-formed token and, for that of an attempt, the attempt's name, unchecked."""

Over = Callable[[Actor], "asyncio.Future[None] | None"]
"""Returns what is done when the actor is user code whose attempt is over; None for others."""

TOKEN_KINDS = ("lk", "lw", "lj", "li")
_ATTEMPT = ATTEMPT_HEADER.lower().encode()


async def admit(
    operation: Operation,
    params: dict[str, str],
    scope: Scope,
    receive: Receive,
    authenticate: Authenticate,
    request_id: str,
    over: Over = lambda _: None,
) -> Request:
    """Return the request for the handler of `operation`.

    Raises:
        PlatformError: It is refused.
    """
    headers = read_headers(scope)
    actor = await authorise(operation.policy, headers, authenticate)
    query = parse_query(scope["query_string"], operation.query)
    media_type = ""
    if operation.body_max and (operation.needs_body or announces_body(headers)):
        media_type = check_body_headers(headers, operation.accepts, operation.body_max)
    else:
        check_no_body(headers)
    return Request(
        id=request_id,
        params=params,
        query=query,
        headers=headers,
        media_type=media_type,
        body_max=operation.body_max,
        actor=actor,
        receive=receive,
        route=operation.route,
        key=read_key(headers) if operation.method == "POST" else None,
        over=None if actor is None else over(actor),
    )


def read_headers(scope: Scope) -> dict[bytes, bytes]:
    """Return the headers by lower-case name, repeated ones joined by a comma.

    Raises:
        TooLarge: Path, query and headers exceed `HEADER_BLOCK_MAX` together.
    """
    pairs: list[tuple[bytes, bytes]] = scope["headers"]
    headers: dict[bytes, bytes] = {}
    size = len(scope["raw_path"]) + len(scope["query_string"])
    for name, value in pairs:
        size += len(name) + len(value)
        headers[name] = value if name not in headers else headers[name] + b", " + value
    if size > HEADER_BLOCK_MAX:
        raise TooLarge(f"The request's headers exceed {HEADER_BLOCK_MAX} bytes.")
    return headers


async def authorise(policy: Policy, headers: dict[bytes, bytes], authenticate: Authenticate) -> Actor | None:
    """Return the caller when the policy admits them; None for a public operation.

    Raises:
        Unauthenticated: There is no good token.
        Forbidden: The token is good and the policy refuses its holder.
    """
    if policy.audience is Audience.PUBLIC:
        return None
    attempt = headers.get(_ATTEMPT, b"").decode("latin-1")
    actor = await authenticate(bearer_token(headers.get(b"authorization", b"")), attempt)
    refusal = policy.refusal(actor)
    if refusal is not None:
        raise Forbidden(refusal)
    return actor


def bearer_token(header: bytes) -> str:
    """Return the token of an `Authorization` header, checked for form and checksum only."""
    scheme, _, token = header.partition(b" ")
    if scheme.lower() != b"bearer":
        raise Unauthenticated("Send an API key: Authorization: Bearer lk_…")
    text = token.strip(b" ").decode("latin-1")
    if token_kind(text) not in TOKEN_KINDS:
        raise Unauthenticated("The token is malformed: it was cut, mistyped, or is no token of this platform.")
    return text
