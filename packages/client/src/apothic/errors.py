"""Every exception that the SDK raises, and the one table from a server's error code to its class.

`ApothicError` is the root. What the platform refuses or cannot do is one of its direct children; user code that failed
remotely is `RemoteExecutionError`, which is data about somebody else's exception.
"""

from __future__ import annotations

from typing import Any, cast

from apothic.wire.values import RemoteError


class ApothicError(Exception):
    """Root of all errors of this package.

    Attributes:
        code: Stable code for programs; the class's own code unless the server sent a finer one.
        request_id: Id of the request that failed, for support; None when no server answered.
        retryable: Whether the same request may succeed later without a change.
        detail: The server's `detail` as sent: text or a validation list; None when no server answered.
        item: Number from 0 of the item of a map that failed so; None in all other cases.
    """

    code = "error"
    retryable = False
    item: int | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        detail: Any = None,
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.detail: Any = detail
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable


class AuthError(ApothicError):
    """No credential was sent, or one that is malformed, unknown, expired or revoked (401)."""

    code = "unauthenticated"


class PermissionDeniedError(ApothicError):
    """The key is known and may not do this (403)."""

    code = "forbidden"


class NotFoundError(ApothicError):
    """No such app, function, deployment or job for this key (404)."""

    code = "not_found"


class ConflictError(ApothicError):
    """The request fits no longer: something else changed first (409)."""

    code = "conflict"


class InvalidRequestError(ApothicError):
    """An option, a name or a request is wrong; nothing was done (405, 415, 422, and checks made before sending)."""

    code = "invalid"


class NotSupportedError(ApothicError):
    """This release cannot do what was asked for; nothing was done."""

    code = "not_supported"


class CapacityError(ApothicError):
    """Too much work waits (429; the SDK has waited for as long as it may), or the disk is nearly full (507)."""

    code = "too_many_pending"
    retryable = True


class TooLargeError(ApothicError):
    """A value, a body or an archive exceeds its limit (413, and checks made before sending)."""

    code = "too_large"


class UnavailableError(ApothicError):
    """The server cannot be reached or cannot answer now; nothing was done (503 and network failures)."""

    code = "unavailable"
    retryable = True


class ConnectionLostError(ApothicError):
    """The connection ended and no further try was answered: the request may or may not have taken effect."""

    code = "connection_lost"


class ProtocolError(ApothicError):
    """The answer is not what a server of this version says: a proxy in between, or versions that do not fit."""

    code = "protocol_error"


class ConfigError(ApothicError):
    """A configuration file or variable is unreadable, unsafe or malformed."""

    code = "config_invalid"


class CloudNotRunning(ApothicError):
    """No address is configured and no cloud runs on this machine; start one with `apothic up`."""

    code = "cloud_not_running"


class NotDeployedError(ApothicError):
    """A handle of a local app was called remotely before `deploy()` in this process."""

    code = "not_deployed"


class SerializationError(ApothicError):
    """An argument cannot be sent, or a result cannot be read here."""

    code = "not_serializable"


class JobCancelledError(ApothicError):
    """The job was cancelled.

    Attributes:
        job_id: Id of the job.
    """

    code = "cancelled"

    def __init__(self, message: str, *, job_id: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class JobTimeoutError(ApothicError, TimeoutError):
    """Waiting ended before the job did, or the job exceeded a time limit of its own.

    Attributes:
        job_id: Id of the job; None when the limit passed before the server named one.
        is_final: True when the job itself timed out; False when it still runs (`code` is `wait_timeout`).
        code: Of a job that timed out: `timeout`, `queue_timeout`, `startup_timeout` or `deadline_exceeded`.
    """

    code = "wait_timeout"

    def __init__(
        self, message: str, *, job_id: str | None = None, is_final: bool = False, code: str | None = None
    ) -> None:
        super().__init__(message, code=(code or "timeout") if is_final else "wait_timeout")
        self.job_id = job_id
        self.is_final = is_final


class JobStreamResetError(ApothicError):
    """Events that a reader still needed are gone.

    Attributes:
        job_id: Id of the job.
        requested_index: The last index that the reader had seen.
        oldest_index: The oldest index still kept.
        latest_index: The newest index; reading may go on after it.
        event: The `JobResetEvent`, with a snapshot of the job; None when another error led here.
    """

    code = "stream_reset"

    def __init__(
        self,
        message: str,
        *,
        job_id: str | None = None,
        requested_index: int = -1,
        oldest_index: int = 0,
        latest_index: int = -1,
        event: Any = None,
    ) -> None:
        super().__init__(message)
        self.event = event
        self.job_id = job_id
        self.requested_index = requested_index
        self.oldest_index = oldest_index
        self.latest_index = latest_index


class RemoteExecutionError(ApothicError):
    """User code failed remotely. `str()` shows the remote traceback; `__cause__` continues the remote chain.

    Attributes:
        type_name: Qualified class name of the remote exception, for example `builtins.ValueError`.
        message: Its text.
        traceback: Its formatted traceback, user frames only; may be empty.
        code: Why the attempt failed: `exception`, `load_failed`, `out_of_memory`, `worker_lost` and so on.
        causes: The chain behind it, nearest first.
        job_id: Id of the job; None in a cause.
    """

    code = "exception"

    def __init__(
        self,
        type_name: str,
        message: str,
        traceback: str = "",
        code: str = "exception",
        causes: tuple[RemoteExecutionError, ...] = (),
        job_id: str | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.args = (type_name, message, traceback, code, causes, job_id)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback
        self.causes = causes
        self.job_id = job_id
        link: BaseException = self
        for cause in causes:
            link.__cause__ = cause
            link = cause

    def __str__(self) -> str:
        first = f"{self.type_name}: {self.message}" if self.message else self.type_name
        if self.code != "exception":
            first = f"{first} [{self.code}]"
        if self.item is not None:
            first = f"{first} (item {self.item})"
        return f"{first}\n\nRemote traceback:\n{self.traceback.rstrip()}" if self.traceback else first


def remote_error(error: RemoteError, *, job_id: str | None = None) -> RemoteExecutionError:
    """Return the exception for a remote failure, its causes chained."""
    causes = tuple(remote_error(cause) for cause in error.causes)
    return RemoteExecutionError(error.type, error.message, error.traceback, error.code, causes, job_id)


BY_CODE: dict[str, type[ApothicError]] = {
    "unauthenticated": AuthError,
    "forbidden": PermissionDeniedError,
    "not_found": NotFoundError,
    "conflict": ConflictError,
    "archive_missing": ConflictError,
    "app_stopped": ConflictError,
    "no_earlier_version": ConflictError,
    "deployment_active": ConflictError,
    "deployment_stopped": ConflictError,
    "deployment_busy": ConflictError,
    "schedule_ended": ConflictError,
    "fenced": ConflictError,
    "idempotency_in_progress": ConflictError,
    "job_not_ended": ConflictError,
    "group_differs": ConflictError,
    "group_gap": ConflictError,
    "group_closed": ConflictError,
    "call_cycle_deadlock": ConflictError,
    "call_depth_exceeded": InvalidRequestError,
    "invalid": InvalidRequestError,
    "digest_mismatch": InvalidRequestError,
    "python_mismatch": SerializationError,
    "idempotency_key_invalid": InvalidRequestError,
    "idempotency_key_reused": InvalidRequestError,
    "method_not_allowed": InvalidRequestError,
    "request_timeout": UnavailableError,
    "upgrade_required": InvalidRequestError,
    "unsupported_media_type": InvalidRequestError,
    "not_supported": NotSupportedError,
    "too_large": TooLargeError,
    "value_too_large": TooLargeError,
    "too_many_pending": CapacityError,
    "group_full": CapacityError,
    "too_many_watchers": CapacityError,
    "too_many_new_watchers": CapacityError,
    "unavailable": UnavailableError,
    "disk_low": CapacityError,
}
"""Server error code to class. A code that is not here falls back to `BY_STATUS`."""

BY_STATUS: dict[int, type[ApothicError]] = {
    400: InvalidRequestError,
    401: AuthError,
    403: PermissionDeniedError,
    404: NotFoundError,
    405: InvalidRequestError,
    408: UnavailableError,
    409: ConflictError,
    413: TooLargeError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: CapacityError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
    507: CapacityError,
}


def error_from_answer(status: int, body: Any, request_id: str | None = None) -> ApothicError:
    """Return the exception for an error answer.

    Args:
        status: HTTP status.
        body: The decoded JSON body, or None when it was no JSON.
        request_id: `X-Request-Id` of the answer, used when the body names none.
    """
    fields = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    code = fields.get("code")
    detail = fields.get("detail")
    kind = BY_CODE.get(code) if isinstance(code, str) else None
    kind = kind or BY_STATUS.get(status, ApothicError)
    named = fields.get("request_id")
    retryable = fields.get("retryable")
    return kind(
        _sentence(detail) or f"The server answered with status {status} and no explanation.",
        code=code if isinstance(code, str) else None,
        request_id=named if isinstance(named, str) else request_id,
        retryable=retryable if isinstance(retryable, bool) else None,
        detail=detail,
    )


def _sentence(detail: Any) -> str:
    """Return `detail` as text; entries of a validation list become `place: message`."""
    if isinstance(detail, str):
        return detail
    if not isinstance(detail, list):
        return ""
    return "; ".join(_problem(entry) for entry in cast("list[Any]", detail))


def _problem(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    fields = cast("dict[str, Any]", entry)
    places = fields.get("loc")
    path = ".".join(str(place) for place in cast("list[Any]", places)) if isinstance(places, list) else ""
    message = str(fields.get("msg", "is wrong"))
    return f"{path}: {message}" if path else message
