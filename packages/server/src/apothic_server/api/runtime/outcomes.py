"""An outcome as JSON and as a frame."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from apothic.wire.frames import encode_frame, join_frame
from apothic.wire.ids import JobId
from apothic.wire.runner import error_to_json
from apothic.wire.values import Value
from apothic_server.api.runtime.records import job_id
from apothic_server.domain.views import Outcome

_to_json = msgspec.json.Encoder().encode

ALIVE_FRAME = encode_frame({"kind": "alive"})


def accepted_frame(job: JobId, obstacle: str | None) -> bytes:
    """Return the first frame of an answer whose outcome is not known yet."""
    head = {"kind": "accepted", "job_id": job_id(job)}
    return encode_frame(head if obstacle is None else {**head, "obstacle": obstacle})


def outcome_frame(outcome: Outcome) -> bytes:
    """Return the last frame of a streamed answer."""
    value = outcome.value
    head = {
        "kind": "outcome",
        "job_id": job_id(outcome.job),
        "status": outcome.status.value,
        "encoding": None if value is None else value.encoding,
        "python": None if value is None else value.python,
        "error": _error(outcome),
        "attempt": outcome.attempt,
    }
    return join_frame(_to_json(head), b"" if value is None else value.data)


def outcome_record(outcome: Outcome) -> dict[str, Any]:
    """Return the JSON answer; the result's bytes are never interpreted beyond being valid JSON (G19.3)."""
    encoding, result = _result(outcome.value)
    return {
        "job_id": job_id(outcome.job),
        "status": outcome.status.value,
        "encoding": encoding,
        "result": result,
        "error": _error(outcome),
        "attempt": outcome.attempt,
    }


def result_record(value: Value) -> dict[str, Any]:
    """Return a result as JSON fields: `encoding`, `python` and `result`, which is base64 text unless it is JSON."""
    encoding, result = _result(value)
    return {"encoding": encoding, "python": value.python, "result": result}


def _error(outcome: Outcome) -> dict[str, Any] | None:
    return None if outcome.error is None else error_to_json(outcome.error)


def _result(value: Value | None) -> tuple[str | None, msgspec.Raw | str | None]:
    if value is None:
        return None, None
    if value.encoding != "json":
        return value.encoding, base64.b64encode(value.data).decode()
    if not _is_json(value.data):
        return "opaque", base64.b64encode(value.data).decode()
    return "json", msgspec.Raw(value.data)


def _is_json(data: bytes) -> bool:
    """Whether user code's bytes can stand inside our JSON without changing what is around them."""
    try:
        data.decode()
        msgspec.json.decode(data, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return False
    return True
