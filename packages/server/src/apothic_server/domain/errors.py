"""Errors that the platform answers with. Each has one stable code, listed in `docs/reference/errors.md`, never reused.

A face turns the class into a status (`api/shared/errors.py`); the message is for the person who made the request and
never holds a query, path, secret or another org's name (G20.6).
"""

from __future__ import annotations

from typing import Any


class PlatformError(Exception):
    """Base of all answers that are not a success.

    Attributes:
        code: Stable code for programs.
        retryable: Whether the same request may succeed later without a change.
        retry_after_s: Advice for `Retry-After`, or None.
    """

    code = "internal"
    retryable = False

    def __init__(self, detail: str, *, code: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code


class Unauthenticated(PlatformError):
    """No credential, or one that is malformed, unknown, expired or revoked."""

    code = "unauthenticated"


class Forbidden(PlatformError):
    """The caller is known, sees the thing, and may not do this to it."""

    code = "forbidden"


class NotFound(PlatformError):
    """No such thing in the caller's org; another org's id answers exactly the same."""

    code = "not_found"


class Conflict(PlatformError):
    """The request fits no longer: somebody else changed the thing first."""

    code = "conflict"


class Fenced(Conflict):
    """The grant expired or was taken over, so the change was not applied."""

    code = "fenced"


class KeyInProgress(Conflict):
    """Another request with this idempotency key is at work; ask again for its answer."""

    code = "idempotency_in_progress"
    retryable = True


class Invalid(PlatformError):
    """The request is understood and wrong.

    Args:
        problems: Validation list, each `{"loc": [...], "msg": str, "type": str}`; it becomes the body's `detail`.
    """

    code = "invalid"

    def __init__(self, detail: str, *, code: str | None = None, problems: list[dict[str, Any]] | None = None) -> None:
        super().__init__(detail, code=code)
        self.problems = problems


class KeyReused(Invalid):
    """The idempotency key was used for another request."""

    code = "idempotency_key_reused"


class TooLarge(PlatformError):
    """A body, value or archive exceeds its limit (G15.1)."""

    code = "too_large"


class TooMany(PlatformError):
    """A bound on waiting work is reached; try again later."""

    code = "too_many_pending"
    retryable = True


class Unavailable(PlatformError):
    """The store is away or the server is stopping; nothing was done."""

    code = "unavailable"
    retryable = True


class KeyTaken(Unavailable):
    """The store refused a new job because its idempotency key is there already; the key's row says for what."""


class DiskLow(PlatformError):
    """The disk of the store is nearly full, so nothing new is taken; nothing was done (G14.2)."""

    code = "disk_low"
    retryable = True


class Moved(Unavailable):
    """Another server does this now; `url` is its address. Told to workers only."""

    code = "moved"

    def __init__(self, detail: str, url: str) -> None:
        super().__init__(detail)
        self.url = url


def problem(loc: list[str | int], msg: str, kind: str) -> dict[str, Any]:
    """Return one entry of a validation list."""
    return {"loc": loc, "msg": msg, "type": kind}


def no_such(thing: str) -> NotFound:
    """Return the one answer for a malformed, an unknown and a foreign identifier of a `thing` (G16.1)."""
    return NotFound(f"There is no such {thing}.")
