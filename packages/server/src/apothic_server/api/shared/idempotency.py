"""Idempotency keys on the wire: the two headers of a request, and answers that are given again (G6.1, G6.2)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from apothic_server.api.shared.response import JSON_TYPE, Response
from apothic_server.domain.errors import Invalid, problem
from apothic_server.domain.idempotency import Keep, KeptAnswer, RequestKey, T

_KEY = re.compile(rb"[!-~]{1,255}")
_TRIES = {b"first": True, b"again": False}
_REPLAYED = (b"idempotent-replayed", b"true")


@dataclass(frozen=True, slots=True)
class GivenKey:
    """What the headers of a request say; `is_first` as for `RequestKey`."""

    key: bytes
    is_first: bool


def read_key(headers: Mapping[bytes, bytes]) -> GivenKey | None:
    """Return the request's idempotency key, or None when it has none.

    Raises:
        Invalid: A header does not have its form.
    """
    key = headers.get(b"idempotency-key")
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        detail = "Idempotency-Key must be 1 to 255 visible ASCII characters, given once."
        raise Invalid(detail, code="idempotency_key_invalid")
    is_first = _TRIES.get(headers.get(b"idempotency-try", b"again"))
    if is_first is None:
        wrong = problem(["header", "idempotency-try"], "must be first or again", "unknown_kind")
        raise Invalid("Idempotency-Try is not valid.", problems=[wrong])
    return GivenKey(key, is_first)


def request_key(given: GivenKey, route: str, asked: Mapping[str, str], media_type: str, body: bytes) -> RequestKey:
    """Return what identifies a request among its repeats.

    Args:
        route: Method and path of the operation, with its parameters unfilled.
        asked: Parameters of path and query that say what is asked for.
    """
    digest = hashlib.sha256(b"%b\n%b" % (route.encode(), given.key)).digest()
    fingerprint = hashlib.sha256(_about(tuple(asked.items()), media_type))
    fingerprint.update(body)
    return RequestKey(digest, fingerprint.digest(), given.is_first)


@lru_cache(maxsize=64)
def _about(asked: tuple[tuple[str, str], ...], media_type: str) -> bytes:
    parts = (part for pair in sorted(asked) for part in pair)
    return "".join(f"{len(part)}:{part}" for part in (*parts, media_type)).encode()


def replayed(response: Response) -> Response:
    """Say that an earlier request with the same key had the effect that `response` tells."""
    response.headers.append(_REPLAYED)
    return response


async def answer_once(
    key: RequestKey | None,
    act: Callable[[Keep[T] | None], Awaitable[T | KeptAnswer]],
    respond: Callable[[T], Response],
) -> Response:
    """Answer an operation whose answer is kept beside its effect.

    Args:
        act: Has the effect, or returns what was kept of an earlier request.
        respond: Turns the result into a whole JSON answer.
    """

    def kept(result: T) -> KeptAnswer:
        response = respond(result)
        return KeptAnswer(response.status, response.body)

    found = await act(None if key is None else Keep(key, kept))
    if isinstance(found, KeptAnswer):
        return replayed(Response(found.status, JSON_TYPE, found.body))
    return respond(found)
