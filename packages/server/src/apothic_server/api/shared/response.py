"""Answers: whole ones in memory, or a stream of pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

JSON_TYPE = "application/json"
_encode = msgspec.json.Encoder().encode


class Last(bytes):
    """The piece of a stream after which nothing comes: it is sent together with the end of the answer."""

    __slots__ = ()


class Pieces(Protocol):
    """Pieces of a body in order, such as an async generator. Closed however the answer ends, also before its first."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def aclose(self) -> Awaitable[None]: ...


def _no_headers() -> list[tuple[bytes, bytes]]:
    return []


@dataclass(slots=True)
class Response:
    """One answer.

    Attributes:
        content_type: None for an answer without a body.
        body: The whole body; unused with `stream`.
        headers: Further headers; names in lower case.
        stream: Pieces of the body in order. An exception inside it, or a cut of it, ends the connection without the
            end mark of the body, so that a reader notices.
        reader_idle_s: The reader of `stream` is cut off when it takes nothing for so many seconds; None stands for the
            limit of all answers.
    """

    status: int
    content_type: str | None = None
    body: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=_no_headers)
    stream: Pieces | None = None
    reader_idle_s: float | None = None


def headers_of(response: Response, request_id: str, *, is_whole: bool = True) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer to any method but HEAD; the listener adds those of every answer.

    Args:
        is_whole: Its body is all that is sent.
    """
    headers = [(b"x-request-id", request_id.encode()), *response.headers]
    if response.content_type is not None:
        headers.append((b"content-type", response.content_type.encode()))
    if is_whole and response.stream is None:
        headers.append((b"content-length", str(len(response.body)).encode()))
    return headers


def json_response(value: Any, *, status: int = 200) -> Response:
    """Return `value` as JSON; `msgspec.Raw` inside it is carried as it is."""
    return Response(status, JSON_TYPE, _encode(value))


def raw_response(body: bytes, content_type: str, *, status: int = 200) -> Response:
    """Return bytes as they are."""
    return Response(status, content_type, body)


def empty_response(status: int = 200) -> Response:
    """Return an answer without a body."""
    return Response(status)


def stream_response(stream: Pieces, content_type: str, *, reader_idle_s: float | None = None) -> Response:
    """Return a body that is sent piece by piece; `reader_idle_s` as in `Response`."""
    return Response(200, content_type, stream=stream, reader_idle_s=reader_idle_s)
