"""Calls and their outcomes: one handler decides by `Accept` between a stream of frames and one JSON answer (D8).

A stream begins with the outcome itself when that is known within `AT_ONCE_S`; otherwise with the job's id as soon as
the job is durable. The futures belong to the job: a client that leaves stops the answer, never the job.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from apothic.wire.ids import FunctionId
from apothic.wire.limits import KEEP_ALIVE_S, WAIT_S_MAX
from apothic.wire.values import OUTCOME_TYPE
from apothic_server.api.runtime.apps import app_and_function
from apothic_server.api.runtime.arguments import read_arguments
from apothic_server.api.runtime.outcomes import ALIVE_FRAME, accepted_frame, outcome_frame, outcome_record
from apothic_server.api.runtime.records import function_key, job_id, job_key
from apothic_server.api.runtime.waiting import FirstDone
from apothic_server.api.shared.errors import ClientGoneError
from apothic_server.api.shared.idempotency import replayed
from apothic_server.api.shared.query import seconds
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Last, Response, json_response, raw_response, stream_response
from apothic_server.api.shared.services import Services
from apothic_server.domain.access import Actor
from apothic_server.domain.errors import KeyTaken
from apothic_server.domain.idempotency import RequestKey
from apothic_server.domain.jobs import JobStatus
from apothic_server.domain.views import Outcome, Submitted
from apothic_server.failpoints import fp

AT_ONCE_S = 0.005
"""Time in which a known outcome is the whole answer."""

_OUTCOME_TYPE = OUTCOME_TYPE.encode()


class CallHandlers:
    """Handlers of the three operations that answer outcomes."""

    def __init__(self, services: Services, first_done: FirstDone) -> None:
        self._jobs = services.jobs
        self._first_done = first_done

    async def call_function(self, request: Request) -> Response:
        """Call a function by id."""
        return await self._call(request, function_key(request.params["function_id"]))

    async def call_app_function(self, request: Request) -> Response:
        """Call a function by app and name."""
        return await self._call(request, app_and_function(request))

    async def get_outcome(self, request: Request) -> Response:
        """Wait for the end of a job that was called before."""
        key = job_key(request.params["job_id"])
        wait_s = _wait_s(request)
        found = await self._jobs.outcome(request.actor, key)
        is_over = isinstance(found, Outcome)
        is_look = wait_s == 0 and not wants_stream(request.headers)
        leave = _stay if is_over or is_look else self._jobs.attend(request.actor, key)
        call = Submitted(key, _done(None), _done(found) if is_over else found, leave=leave)
        if wants_stream(request.headers):
            return await self._answer(request, call, None)
        try:
            await self._wait(request, (call.outcome,), wait_s)
            return await self._json(request, call)
        finally:
            leave()

    async def retry_job(self, request: Request) -> Response:
        """Make a new job from one that has ended."""
        job, key = job_key(request.params["job_id"]), request.key()
        return await self._told(request, await self._jobs.retry(request.actor, job, key=key), key, 0)

    async def go_on(
        self, request: Request, call: Submitted, key: RequestKey | None, *, is_accepted_told: bool
    ) -> Response:
        """Stream the rest of an answer that was begun at least `AT_ONCE_S` ago, or whose outcome is there."""
        if is_accepted_told:
            first = None if call.outcome.done() else ALIVE_FRAME
            return stream_response(self._frames(request, call, first), OUTCOME_TYPE)
        return await self._told(request, call, key, None, at_once_s=0)

    def accepted(self, actor: Actor, call: Submitted) -> bytes:
        """Return the first frame of an answer whose outcome is not known yet."""
        return accepted_frame(call.job, self._jobs.obstacle(actor, call.job))

    async def _call(self, request: Request, function: FunctionId | tuple[str, str]) -> Response:
        wait_s = _wait_s(request)
        body = await request.body()
        value, key = read_arguments(body, request.media_type), request.key(body)
        is_stream = wants_stream(request.headers)
        call = await self._jobs.submit(request.actor, function, value, blocking=is_stream or wait_s > 0, key=key)
        return await self._told(request, call, key, None if is_stream else wait_s)

    async def _told(
        self,
        request: Request,
        call: Submitted,
        key: RequestKey | None,
        wait_s: float | None,
        *,
        at_once_s: float = AT_ONCE_S,
    ) -> Response:
        """Answer a call, or the one that had its key first."""
        try:
            return await self._answer(request, call, wait_s, at_once_s=at_once_s)
        except KeyTaken:
            if key is None:
                raise
        return await self._answer(request, await self._jobs.repeated(request.actor, key), wait_s)

    async def _answer(
        self, request: Request, call: Submitted, wait_s: float | None, *, at_once_s: float = AT_ONCE_S
    ) -> Response:
        """Answer a call: as a stream, or as JSON after at most `wait_s`.

        Whoever waits through this request is known to have left when it is over (G2.7).
        """
        if call.is_replay and wait_s != 0:
            call = replace(call, leave=self._jobs.attend(request.actor, call.job))
        is_handed_on = False
        try:
            if wait_s is None:
                response = await self._stream(request, call, at_once_s)
            else:
                response = await self._within(request, call, wait_s)
            is_handed_on = response.stream is not None
            return replayed(response) if call.is_replay else response
        finally:
            if not is_handed_on:
                call.leave()

    async def _within(self, request: Request, call: Submitted, wait_s: float) -> Response:
        if wait_s == 0:
            await asyncio.shield(call.accepted)
            await fp("call.accepted")
            return json_response({"job_id": job_id(call.job), "status": JobStatus.QUEUED.value}, status=202)
        await self._wait(request, (call.outcome,), wait_s)
        return await self._json(request, call)

    async def _json(self, request: Request, call: Submitted) -> Response:
        if not call.outcome.done():
            await asyncio.shield(call.accepted)
            view = await self._jobs.get(request.actor, call.job)
            return json_response({"job_id": job_id(call.job), "status": view.job.status.value}, status=202)
        return json_response(outcome_record(_result(call)))

    async def _stream(self, request: Request, call: Submitted, at_once_s: float) -> Response:
        if at_once_s:
            await self._first_done((call.outcome,), at_once_s)
        if not call.outcome.done():
            await self._wait(request, (call.outcome, call.accepted), None)
        if call.outcome.done():
            return raw_response(outcome_frame(_result(call)), OUTCOME_TYPE)
        call.accepted.result()
        return stream_response(self._frames(request, call, self.accepted(request.actor, call)), OUTCOME_TYPE)

    async def _frames(self, request: Request, call: Submitted, first: bytes | None) -> AsyncGenerator[bytes]:
        try:
            if first is not None:
                yield first
            while not call.outcome.done():
                await self._wait(request, (call.outcome,), KEEP_ALIVE_S)
                if not call.outcome.done():
                    yield ALIVE_FRAME
            yield Last(outcome_frame(_result(call)))
        finally:
            call.leave()

    async def _wait(self, request: Request, futures: tuple[asyncio.Future[Any], ...], timeout_s: float | None) -> None:
        """Wait for one of `futures`; raises `ClientGoneError` as soon as nobody waits for the answer."""
        if timeout_s == 0 or any(future.done() for future in futures):
            return
        gone = asyncio.ensure_future(request.gone())
        try:
            await self._first_done((*futures, gone), timeout_s)
            if gone.done() and not any(future.done() for future in futures):
                raise ClientGoneError
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone


def _stay() -> None:
    """Nobody waits, so nobody leaves."""


def wants_stream(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a call is to be answered as a stream."""
    return _OUTCOME_TYPE in headers.get(b"accept", b"")


def _wait_s(request: Request) -> float:
    return seconds(request.query, "wait_s", WAIT_S_MAX, WAIT_S_MAX)


def _result(call: Submitted) -> Outcome:
    if call.accepted.done() and not call.accepted.cancelled():
        refusal = call.accepted.exception()  # else the outcome tells the same; nobody needs to be warned about this one
        if isinstance(refusal, KeyTaken):
            raise refusal
    return call.outcome.result()


def _done(value: Any) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future
