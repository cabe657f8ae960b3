"""Blocking calls and waiting for a job, without I/O: one streamed answer, resumed by the job's id when it breaks.

A call is one request. Its answer is a stream of frames: `accepted` with the job's id once the job is durable, `alive`
every 15 s, and last the `outcome`. When the connection ends after `accepted`, the outcome is asked for by the job's id
until the deadline; before `accepted` the call is sent again with its idempotency key, which joins the job if there is
one. Ctrl-C cancels the job and
waits for that answer; a second Ctrl-C leaves at once and names the job.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from apothic._answers import FINAL, Outcome
from apothic._connection import INTERRUPT_GRACE_S, Answer
from apothic._core import Core, Lost
from apothic._exchange import RESUMES_MAX, open_stream
from apothic._http import Request
from apothic._operations import call_request, cancel_job, part, target
from apothic._steps import Pause, Say, Steps
from apothic._transfers import uploaded
from apothic.errors import (
    ApothicError,
    CloudNotRunning,
    ConnectionLostError,
    JobTimeoutError,
    ProtocolError,
    UnavailableError,
)
from apothic.wire.frames import HEAD_MAX, PREFIX, FrameError, FrameReader
from apothic.wire.limits import KEEP_ALIVE_S, VALUE_MAX
from apothic.wire.runner import error_from_json
from apothic.wire.values import ENCODINGS, OUTCOME_TYPE, RemoteError, Value

if TYPE_CHECKING:
    from apothic._large import LargeBody

T = TypeVar("T")

SILENCE_S_MAX = 3 * KEEP_ALIVE_S
"""Silence after which a streamed answer counts as lost."""

POLL_S = 5.0
"""Bound of one look at a job when the caller does not want to wait."""

_ACCEPT_STREAM = ("Accept", OUTCOME_TYPE)
_FRAME_MAX = PREFIX + HEAD_MAX + VALUE_MAX


class Waiting:
    """What is known about one job that somebody waits for.

    Attributes:
        job_id: None until the server named it.
        was_interrupted: Ctrl-C came before the id was known; the call ends as soon as it is.
        obstacle: Why the job may wait for long, as of the last answer; empty when nothing is known.
    """

    def __init__(self, core: Core, job_id: str | None, timeout_s: float) -> None:
        self.job_id = job_id
        self.was_interrupted = False
        self.is_poll = timeout_s == 0
        self.deadline = core.clock() + (timeout_s or POLL_S)
        self.timeout_s = timeout_s
        self.obstacle = ""

    def defer_interrupt(self) -> bool:
        """Note the first Ctrl-C before the id is known; False when it must be obeyed now."""
        if self.job_id is not None or self.was_interrupted:
            return False
        self.was_interrupted = True
        return True

    def expired(self) -> JobTimeoutError:
        """Return the error for a wait that ended before the job."""
        limit = "yet" if self.is_poll else f"within {self.timeout_s:g} s"
        if self.job_id is None:
            return JobTimeoutError(f"The call was not answered {limit}; it may run.")
        state = f"it waits: {self.obstacle}" if self.obstacle else "it goes on"
        return JobTimeoutError(f"{self.job_id} has not ended {limit}; {state}.", job_id=self.job_id)


def call(core: Core, function_id: str, value: Value | LargeBody, *, timeout_s: float = math.inf) -> Steps[Outcome]:
    """Run a function and return how its job ended; the time limit begins when a large value is uploaded.

    Raises:
        JobTimeoutError: The job did not end within `timeout_s`; it goes on.
        ConnectionLostError: The connection ended again and again before the job's id was known; the job may exist.
        KeyboardInterrupt: Ctrl-C; the job was cancelled.
    """
    sent = value if isinstance(value, Value) else (yield from uploaded(core, value))
    waiting = Waiting(core, None, timeout_s)
    request = call_request(core, function_id, sent, _ACCEPT_STREAM, on_interrupt=waiting.defer_interrupt)

    def start(is_again: bool) -> Steps[Answer]:
        return open_stream(core, request._replace(is_again=True) if is_again else request, waiting.deadline)

    try:
        return (yield from _wait(core, waiting, start))
    except KeyboardInterrupt:
        yield from _cancel_interrupted(core, waiting)
        raise


def outcome(core: Core, job_id: str, *, timeout_s: float = math.inf, poll_interval_s: float = 1.0) -> Steps[Outcome]:
    """Wait for a job and return how it ended; Ctrl-C only ends the waiting.

    Args:
        timeout_s: Bound of the waiting; 0 looks once.
        poll_interval_s: Longest pause before the first try to resume a broken wait.

    Raises:
        JobTimeoutError: The job did not end within `timeout_s`; it goes on.
    """
    waiting = Waiting(core, job_id, timeout_s)
    return _wait(core, waiting, lambda _: _reopen(core, waiting), poll_interval_s)


def _wait(
    core: Core, waiting: Waiting, start: Callable[[bool], Steps[Answer]], poll_interval_s: float = 1.0
) -> Steps[Outcome]:
    opening, losses = start(False), 0
    while True:
        try:
            answer = yield from opening
            return (yield from _follow(core, answer, waiting))
        except Lost as lost:
            losses += 1
            if waiting.job_id is None and (losses >= RESUMES_MAX or waiting.was_interrupted):
                raise _unknown(core) from lost.cause
        except (CloudNotRunning, ConnectionLostError, UnavailableError) as error:
            raise _given_up(core, waiting, error) from error
        pause_s = core.pause_s(losses, poll_interval_s)
        if core.clock() + pause_s >= waiting.deadline:
            raise waiting.expired()
        yield Pause(pause_s)
        opening = start(True) if waiting.job_id is None else _reopen(core, waiting)


def _given_up(core: Core, waiting: Waiting, error: ApothicError) -> ApothicError:
    """Return what to raise when no answer could be opened."""
    is_late = core.clock() >= waiting.deadline
    if is_late and (waiting.job_id is not None or isinstance(error, ConnectionLostError)):
        return waiting.expired()
    if waiting.job_id is None:
        return error
    return type(error)(f"{error} ({waiting.job_id} may go on.)", code=error.code, retryable=error.retryable)


def _reopen(core: Core, waiting: Waiting) -> Steps[Answer]:
    path = target(core, f"/v1/jobs/{part(waiting.job_id or '')}/outcome")
    request = Request("GET", path, (_ACCEPT_STREAM,), is_repeatable=True)
    return open_stream(core, request, waiting.deadline, tries_max=RESUMES_MAX)


def _follow(core: Core, answer: Answer, waiting: Waiting) -> Steps[Outcome]:
    """Read frames until the outcome.

    Raises:
        Lost: The stream broke.
    """
    frames = FrameReader(size_max=_FRAME_MAX)
    heard_at = core.clock()
    try:
        while True:
            data = answer.take() or (yield from _next_bytes(core, answer, waiting, heard_at))
            heard_at = core.clock()
            for head, body in parsed(frames.feed, data):
                known = waiting.obstacle
                found = _act(head, body, waiting)
                if waiting.obstacle not in {"", known}:
                    yield Say(f"apothic: {waiting.job_id} waits: {waiting.obstacle}")
                if waiting.was_interrupted:
                    raise KeyboardInterrupt
                if found is not None:
                    yield from finish(answer)
                    return found
                if waiting.is_poll:
                    raise waiting.expired()
    finally:
        answer.close_unless_finished()


def _next_bytes(core: Core, answer: Answer, waiting: Waiting, heard_at: float) -> Steps[bytes]:
    now = core.clock()
    if now >= waiting.deadline:
        raise waiting.expired()
    patience_s = INTERRUPT_GRACE_S if waiting.was_interrupted else SILENCE_S_MAX
    try:
        data = yield from answer.read(max(0.001, min(waiting.deadline, heard_at + patience_s) - now))
    except TimeoutError as error:
        if core.clock() >= waiting.deadline:
            raise waiting.expired() from None
        raise Lost(error, was_sent=True) from None
    except KeyboardInterrupt:
        if not waiting.defer_interrupt():
            raise
        return b""
    if not data:
        raise Lost(ConnectionResetError("the stream ended before the outcome"), was_sent=True)
    return data


def finish(answer: Answer) -> Steps[None]:
    """Read the end of the stream, which comes with the outcome, so that the connection can be used again."""
    try:
        if answer.is_read or (yield from answer.read(1.0)) == b"":
            answer.finish()
    except (Lost, TimeoutError):
        return


def _act(head: dict[str, Any], body: bytes, waiting: Waiting) -> Outcome | None:
    kind = head.get("kind")
    if kind == "alive":
        return None
    job_id = head.get("job_id")
    if kind not in {"accepted", "outcome"} or not isinstance(job_id, str):
        raise ProtocolError(f"The server's stream does not fit: an unknown record {str(kind)[:40]!r}.")
    waiting.job_id = job_id
    waiting.obstacle = str(head.get("obstacle") or "")
    return parsed(_outcome, head, body) if kind == "outcome" else None


def _outcome(head: dict[str, Any], body: bytes) -> Outcome:
    status, attempt = head["status"], head["attempt"]
    if status not in FINAL or type(attempt) is not int:
        raise ValueError("status or attempt")
    error = head.get("error")
    found: RemoteError | None = error_from_json(error) if error is not None else None
    return Outcome(head["job_id"], status, _value(head, body), found, attempt)


def _value(head: dict[str, Any], body: bytes) -> Value | None:
    encoding, python = head.get("encoding"), head.get("python")
    if encoding is None:
        return None
    if encoding not in ENCODINGS or not (python is None or isinstance(python, str)):
        raise ValueError("encoding")
    return Value(encoding, body, python)


def parsed(function: Callable[..., T], *arguments: Any) -> T:
    """Return what a parser makes of the server's bytes; whatever it stumbles over is the server's fault."""
    try:
        return function(*arguments)
    except (FrameError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"The server's stream does not fit: {error}.") from error


def _unknown(core: Core) -> ConnectionLostError:
    return ConnectionLostError(
        f"The connection to {core.endpoint.url} ended before the job's id was known; the call may have run."
    )


def _cancel_interrupted(core: Core, waiting: Waiting) -> Steps[None]:
    job_id = waiting.job_id
    if job_id is None:
        if waiting.was_interrupted:
            yield Say("apothic: interrupted before the job's id was known; the call may still run")
        return
    try:
        yield from cancel_job(core, job_id)
    except KeyboardInterrupt:
        yield Say(f"apothic: left {job_id}; it may still run, `apothic job cancel {job_id}` ends it")
        raise
    except ApothicError as error:
        yield Say(f"apothic: {job_id} could not be cancelled: {error}")
