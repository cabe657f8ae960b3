"""Tokens that workers on other hosts join with: the operations on them, without I/O."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeVar

from apothic._core import Core
from apothic._exchange import perform
from apothic._http import Request
from apothic._operations import ACCEPT_JSON, JSON_TYPE, get, once, part, read, target
from apothic._ranges import whole
from apothic._steps import Steps
from apothic.wire.limits import JOIN_TOKEN_S_DEFAULT, JOIN_TOKEN_S_MAX, JOIN_TOKEN_S_MIN

if TYPE_CHECKING:
    from apothic._workers import JoinToken, JoinTokenInfo

T = TypeVar("T")


def make(core: Core, life_s: int) -> Steps[JoinToken]:
    """Make a token; the same one however often the request is sent."""
    from apothic._workers import JoinToken

    body = json.dumps({"life_s": whole("life_s", life_s, JOIN_TOKEN_S_MIN, JOIN_TOKEN_S_MAX)}).encode()
    request = Request("POST", target(core, "/v1/join-tokens"), (JSON_TYPE, ACCEPT_JSON), body)
    response = yield from perform(core, once(core, request))
    return read(core, response, JoinToken, 201)


def list_unused(core: Core) -> Steps[tuple[JoinTokenInfo, ...]]:
    """Return the tokens that can still be used."""
    from apothic._workers import JoinTokens

    return (yield from get(core, JoinTokens, "/v1/join-tokens")).items


def revoke(core: Core, join_token_id: str) -> Steps[JoinTokenInfo]:
    """End a token that no worker has joined with; asking twice is fine."""
    from apothic._workers import JoinTokenInfo

    path = target(core, f"/v1/join-tokens/{part(join_token_id)}")
    response = yield from perform(core, Request("DELETE", path, (ACCEPT_JSON,), is_repeatable=True))
    return read(core, response, JoinTokenInfo, 200)


class JoinTokenMethods:
    """The methods of the blocking client about join tokens."""

    @property
    def core(self) -> Core:
        """What all operations share."""
        raise NotImplementedError

    def run(self, steps: Steps[T]) -> T:
        """Perform an operation."""
        raise NotImplementedError

    def make_join_token(self, *, life_s: int = JOIN_TOKEN_S_DEFAULT) -> JoinToken:
        """Return a token with which one worker can join within 60 to 86,400 seconds; needs an operator's key."""
        return self.run(make(self.core, life_s))

    def list_join_tokens(self) -> tuple[JoinTokenInfo, ...]:
        """Return the tokens that a worker can still join with, the oldest first, without their secrets."""
        return self.run(list_unused(self.core))

    def revoke_join_token(self, join_token_id: str) -> JoinTokenInfo:
        """End a token at once. Asking twice is fine. ConflictError when a worker has joined with it already."""
        return self.run(revoke(self.core, join_token_id))
