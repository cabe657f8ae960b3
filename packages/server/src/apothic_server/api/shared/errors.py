"""Errors on the wire: one table from error class to status, one body (G20.6)."""

from __future__ import annotations

from apothic_server.api.shared.response import Response, json_response
from apothic_server.domain import errors

INTERNAL_DETAIL = "The server failed. Its log has the details under this request id."
RETRY_AFTER_DEFAULT_S = 1


class ClientGoneError(Exception):
    """The client closed the connection before its request was whole; nobody reads an answer."""


class MethodNotAllowed(errors.PlatformError):
    """The path exists and has other methods, named in `allowed`."""

    code = "method_not_allowed"

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(f"This address knows {', '.join(allowed)} only.")
        self.allowed = allowed


class RequestTimeout(errors.PlatformError):
    """The body stopped arriving."""

    code = "request_timeout"
    retryable = True


class UnsupportedMediaType(errors.PlatformError):
    """The body has a content type or encoding that the operation does not read."""

    code = "unsupported_media_type"


class UpgradeRequired(errors.PlatformError):
    """The operation speaks WebSocket only."""

    code = "upgrade_required"


STATUSES: dict[type[errors.PlatformError], int] = {
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    MethodNotAllowed: 405,
    RequestTimeout: 408,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    UnsupportedMediaType: 415,
    errors.Invalid: 422,
    UpgradeRequired: 426,
    errors.TooMany: 429,
    errors.Unavailable: 503,
    errors.DiskLow: 507,
}


def status_of(error: errors.PlatformError) -> int:
    """Return the status of the nearest listed class of `error`, else 500."""
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


def error_response(error: errors.PlatformError, request_id: str) -> Response:
    """Return the answer that tells `error`; an error without a status of its own tells nothing but its request id."""
    status = status_of(error)
    if status == 500:
        return internal_response(request_id)
    problems = error.problems if isinstance(error, errors.Invalid) else None
    response = _body(status, problems or error.detail, error.code, request_id, retryable=error.retryable)
    response.headers.extend(_headers(error, status))
    return response


def internal_response(request_id: str) -> Response:
    """Return the answer to an error of ours."""
    return _body(500, INTERNAL_DETAIL, "internal", request_id, retryable=False)


def _body(status: int, detail: object, code: str, request_id: str, *, retryable: bool) -> Response:
    return json_response(
        {"detail": detail, "code": code, "request_id": request_id, "retryable": retryable}, status=status
    )


def _headers(error: errors.PlatformError, status: int) -> list[tuple[bytes, bytes]]:
    match status:
        case 401:
            return [(b"www-authenticate", b"Bearer")]
        case 405 if isinstance(error, MethodNotAllowed):
            return [(b"allow", ", ".join(error.allowed).encode())]
        case 413:  # what is left of the body is not worth reading
            return [(b"connection", b"close")]
        case 426:
            return [(b"upgrade", b"websocket")]
        case 409 if error.retryable:
            return [(b"retry-after", str(error.retry_after_s or RETRY_AFTER_DEFAULT_S).encode())]
        case 429 | 503 | 507:
            seconds = error.retry_after_s if error.retry_after_s is not None else RETRY_AFTER_DEFAULT_S
            return [(b"retry-after", str(seconds).encode())]
        case _:
            return []
