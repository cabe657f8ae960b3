"""Requests with their retries, without I/O.

What may be sent twice:

- nothing reached the server (no connection, or the request was not accepted whole): always;
- the connection ended after the request was sent: only requests whose repetition changes nothing, among them all that
  carry an idempotency key;
- the server refused with 409, 429 or 503 and said `retryable`: always; its `Retry-After` is obeyed.

A request with a key that was sent and never answered may have had its effect, whatever its last try met: that is said.

Pauses double from 1 s to at most 30 s and are drawn between 0 and that (full jitter).
"""

from __future__ import annotations

import json
from typing import Any, cast

from apothic._connection import Answer, open_answer
from apothic._core import Core, Lost
from apothic._http import MalformedAnswerError, Request, Response
from apothic._steps import Pause, Steps
from apothic.config import NOT_RUNNING, is_alive
from apothic.errors import (
    ApothicError,
    CloudNotRunning,
    ConnectionLostError,
    ProtocolError,
    UnavailableError,
    error_from_answer,
)
from apothic.wire.values import OUTCOME_TYPE

TRIES_MAX = 4
"""Tries of one request whose connection fails; refusals that name a time are repeated until the deadline."""

RESUMES_MAX = 8
"""Tries in a row of something that is under way: about a minute, longer than a server takes to restart."""

RETRY_AFTER_S_MAX = 3600
_AWAY = 503
BAD_GATEWAY = 502


def perform(
    core: Core, request: Request, *, timeout_s: float | None = None, tries_max: int = TRIES_MAX
) -> Steps[Response]:
    """Send a request and return the whole answer, whatever its status; at most `tries_max` connections may fail.

    Raises:
        UnavailableError: No connection or no answer in time.
        ConnectionLostError: The connection ended, also in further tries where they may be; what was done is unknown.
        CloudNotRunning: The local cloud has ended.
        ProtocolError: The answer is no HTTP.
    """
    deadline = core.clock() + (core.timeout_s if timeout_s is None else timeout_s)
    response = yield from _repeat(core, request, deadline, stream_type=None, tries_max=tries_max)
    if isinstance(response, Answer):
        raise AssertionError("only streams answer unread")
    return response


def open_stream(
    core: Core, request: Request, deadline: float, *, tries_max: int = TRIES_MAX, content_type: str = OUTCOME_TYPE
) -> Steps[Answer]:
    """Send a request and return its streamed answer of that content type, unread.

    Raises:
        ApothicError: As `perform`, and the server's own errors.
    """
    answer = yield from _repeat(core, request, deadline, stream_type=content_type, tries_max=tries_max)
    if isinstance(answer, Answer):
        return answer
    raise failure(core, answer)


def failure(core: Core, response: Response) -> ApothicError:
    """Return the exception for an answer that is not the wanted one."""
    if 300 <= response.status < 400:
        return ProtocolError(f"{core.endpoint.url} answers with a redirect, which is never followed.", code="redirect")
    if response.status < 400:
        return ProtocolError(f"{core.endpoint.url} gave an unexpected answer with status {response.status}.")
    return error_from_answer(response.status, parse_json(response.body), response.headers.get("x-request-id"))


def parse_json(body: bytes) -> Any:
    """Return decoded JSON, or None when `body` is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _repeat(
    core: Core, request: Request, deadline: float, *, stream_type: str | None, tries_max: int = TRIES_MAX
) -> Steps[Response | Answer]:
    losses, refusals, is_under_way = 0, 0, request.is_again
    while True:
        try:
            answer = yield from _try(core, request, deadline, stream_type)
        except Lost as lost:
            losses += 1
            may_repeat = request.is_repeatable or not lost.was_sent
            pause_s = core.pause_s(losses)
            is_under_way = is_under_way or (lost.was_sent and bool(request.key))
            if is_under_way:
                tries_max = RESUMES_MAX
            is_over = tries_max <= TRIES_MAX and _has_ended(core, lost.cause)
            if losses >= tries_max or not may_repeat or is_over or not _is_passing(core, lost.cause, deadline, pause_s):
                raise _lost_error(core, lost, is_unknown=is_under_way or not may_repeat) from lost.cause
        else:
            refusals += 1
            wait_s = None if isinstance(answer, Answer) else _room_wait_s(core, request, answer, refusals)
            if wait_s is None or core.clock() + wait_s >= deadline:
                if is_under_way and answer.status == _AWAY:
                    raise _unknown(core)
                return answer
            pause_s = wait_s
        request = request._replace(is_again=True)
        yield Pause(pause_s)


def _try(core: Core, request: Request, deadline: float, stream_type: str | None) -> Steps[Response | Answer]:
    answer = yield from open_answer(core, request, deadline, is_stream=stream_type is not None)
    if stream_type is not None and answer.status in {200, 206}:
        is_stream = answer.headers.get("content-type", "").startswith(stream_type)
        if is_stream:
            return answer
    try:
        body = yield from answer.read_all(deadline)
    except BaseException:
        answer.close_unless_finished()
        raise
    answer.finish()
    response = Response(answer.status, answer.headers, body)
    if core.endpoint.socket is not None and _was_cut_behind(response):
        raise Lost(ConnectionResetError("the connection broke behind the worker"), was_sent=True)
    return response


def _was_cut_behind(response: Response) -> bool:
    """Whether the worker says that the control plane broke off: the same as if our own connection had broken."""
    if response.status != BAD_GATEWAY:
        return False
    body: Any = parse_json(response.body)
    return isinstance(body, dict) and cast("dict[str, Any]", body).get("code") == "answer_lost"


def _is_passing(core: Core, cause: Exception, deadline: float, pause_s: float) -> bool:
    """Whether a failure may pass before the deadline."""
    if isinstance(cause, (MalformedAnswerError, TimeoutError)) or _is_certificate(cause):
        return False
    return core.clock() + pause_s < deadline


def _has_ended(core: Core, cause: Exception) -> bool:
    pid = core.endpoint.pid
    return pid is not None and isinstance(cause, ConnectionRefusedError) and not is_alive(pid)


def _is_certificate(cause: Exception) -> bool:
    return type(cause).__name__ in {"SSLCertVerificationError", "SSLError"}


def _room_wait_s(core: Core, request: Request, response: Response, tries: int) -> float | None:
    """Return how long to wait before repeating a refused request, or None when the answer stands."""
    if response.status not in {409, 429, _AWAY} or not request.waits_for_room:
        return None
    body = parse_json(response.body)
    says_retryable = isinstance(body, dict) and body.get("retryable") is True  # pyright: ignore[reportUnknownMemberType]
    if not says_retryable and (request.key or response.status == 409 or not request.is_repeatable):
        return None
    advice = response.headers.get("retry-after", "")
    if not (advice.isascii() and advice.isdigit()):
        return core.pause_s(tries)
    return min(int(advice[:9]), RETRY_AFTER_S_MAX) + core.random()


def _unknown(core: Core) -> ConnectionLostError:
    return ConnectionLostError(
        f"The connection to {core.endpoint.url} ended before the answer; the request may have taken effect."
    )


def _lost_error(core: Core, lost: Lost, *, is_unknown: bool) -> ApothicError:
    url, cause = core.endpoint.url, lost.cause
    if isinstance(cause, MalformedAnswerError):
        return ProtocolError(f"{url} gave an answer that is not HTTP/1.1 as expected: {cause}.")
    if is_unknown:
        return _unknown(core)
    if _has_ended(core, cause):
        return CloudNotRunning(NOT_RUNNING)
    if _is_certificate(cause):
        return UnavailableError(f"{url} cannot be trusted: {cause}", code="tls_failed", retryable=False)
    if isinstance(cause, TimeoutError):
        return UnavailableError(f"{url} gave no answer in time.", code="unreachable")
    return UnavailableError(f"{url} cannot be reached: {cause}.", code="unreachable")
