"""One request as handlers see it: matched, authenticated, with its query parsed and its body still to be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from apothic_server.api.shared.errors import ClientGoneError, RequestTimeout
from apothic_server.api.shared.idempotency import GivenKey, request_key
from apothic_server.domain.access import Actor
from apothic_server.domain.errors import TooLarge
from apothic_server.domain.idempotency import RequestKey

BODY_IDLE_S = 30.0
"""Longest silence inside a body."""


class Request:
    """What a handler may know of a request.

    Attributes:
        id: Request id made by the server.
        params: Decoded path parameters.
        query: Parameters of the query; only allowed names, each once.
        headers: Names in lower case; repeated headers are joined with a comma.
        media_type: Content type of the body without parameters; one of the operation's, or empty without a body.
    """

    __slots__ = (
        "_actor",
        "_body_max",
        "_key",
        "_over",
        "_receive",
        "_route",
        "headers",
        "id",
        "media_type",
        "params",
        "query",
    )

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - the word of the contract
        params: dict[str, str],
        query: Mapping[str, str],
        headers: dict[bytes, bytes],
        media_type: str,
        body_max: int,
        actor: Actor | None,
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        route: str = "",
        key: GivenKey | None = None,
        over: asyncio.Future[None] | None = None,
    ) -> None:
        self.id = id
        self.params = params
        self.query = query
        self.headers = headers
        self.media_type = media_type
        self._body_max = body_max
        self._actor = actor
        self._receive = receive
        self._route = route
        self._key = key
        self._over = over

    def received_by(self, receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> Request:
        """Receive from here on through `receive`; returns this request."""
        self._receive = receive
        return self

    @property
    def actor(self) -> Actor:
        """The authenticated caller; public operations must not ask."""
        if self._actor is None:
            raise AssertionError("a public operation has no actor")
        return self._actor

    def key(self, body: bytes = b"") -> RequestKey | None:
        """Return what identifies this request among its repeats; None when it carries no idempotency key."""
        if self._key is None:
            return None
        query = {name: value for name, value in self.query.items() if name != "wait_s"}  # asks for no other effect
        return request_key(self._key, self._route, {**self.params, **query}, self.media_type, body)

    async def body(self) -> bytes:
        """Read the whole body.

        Raises:
            TooLarge: It holds more than the operation's limit.
            RequestTimeout: It was silent for `BODY_IDLE_S`.
            ClientGoneError: The connection closed inside it.
        """
        data, more = await self._next()
        if not more:
            return data
        pieces, size = [data], len(data)
        while more:
            data, more = await self._next(size)
            size += len(data)
            pieces.append(data)
        return b"".join(pieces)

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Read the body piece by piece; raises as `body`."""
        size, more = 0, True
        while more:
            data, more = await self._next(size)
            size += len(data)
            if data:
                yield data

    @property
    def over(self) -> asyncio.Future[None] | None:
        """Done when the caller is user code whose attempt is over: it is answered no further. Not to be cancelled."""
        return self._over

    async def gone(self) -> None:
        """Return when the client has closed the connection, or is answered no further; only after the body was read."""
        if self._over is None:
            await self._left()
            return
        left = asyncio.ensure_future(self._left())
        try:
            await asyncio.wait((left, self._over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self, size: int = 0) -> tuple[bytes, bool]:
        try:
            async with asyncio.timeout(BODY_IDLE_S):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimeout("The request's body stopped arriving.") from None
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        data: bytes = message.get("body", b"")
        if size + len(data) > self._body_max:
            raise TooLarge(f"The body exceeds {self._body_max} bytes.")
        return data, message.get("more_body", False)
