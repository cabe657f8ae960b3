"""How errors end a command: one exit code, one message, never a traceback unless asked for."""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from contextlib import suppress
from typing import Any, cast

import click

from apothic.cli.console import say
from apothic.cli.settings import Settings
from apothic.errors import (
    ApothicError,
    AuthError,
    CapacityError,
    CloudNotRunning,
    ConfigError,
    ConflictError,
    ConnectionLostError,
    InvalidRequestError,
    JobCancelledError,
    JobTimeoutError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    ProtocolError,
    RemoteExecutionError,
    SerializationError,
    TooLargeError,
    UnavailableError,
)

ERROR = 1
USAGE = 2
REMOTE_FAILED = 100
REMOTE_CANCELLED = 103
STILL_RUNNING = 10
INTERRUPTED = 130

EXIT_CODES: tuple[tuple[type[ApothicError], int], ...] = (
    (AuthError, 3),
    (PermissionDeniedError, 4),
    (NotFoundError, 5),
    (ConflictError, 6),
    (CapacityError, 7),
    (InvalidRequestError, 8),
    (NotSupportedError, 8),
    (TooLargeError, 8),
    (SerializationError, 8),
    (ConfigError, 8),
    (UnavailableError, 9),
    (ConnectionLostError, 9),
    (ProtocolError, 9),
    (CloudNotRunning, 9),
    (JobTimeoutError, STILL_RUNNING),
    (RemoteExecutionError, REMOTE_FAILED),
    (JobCancelledError, REMOTE_CANCELLED),
)
"""Class of an error to the exit code of the command; anything else is 1."""

_HINTS = {
    "unauthenticated": "`apothic doctor` shows which key is used and from where; APOTHIC_API_KEY sets another.",
    "forbidden": "`apothic status` shows the role of your key; use one whose role and scopes allow this.",
    "no_earlier_version": "`apothic history APP` lists the versions; `apothic rollback APP --to VERSION` takes one.",
    "app_stopped": "`apothic deploy FILE` makes the app answer calls again.",
    "image_needs_builder": "Make the image of packages, variables and files alone: no machine here builds more.",
    "image_build_failed": "`apothic image logs APP` shows all of it; `apothic deploy --force FILE` tries it again.",
    "deployment_active": "`apothic deployment stop` first, or delete it with --force.",
    "deployment_busy": "Wait until its jobs have ended, or delete it with --force, which cancels them.",
    "too_many_pending": "Wait until waiting calls have run, or deploy with a larger max_pending_tasks.",
    "unreachable": "Is the address right, and does the cloud run? `apothic doctor` checks the way to it.",
    "unavailable": "`apothic doctor` checks the way to the cloud.",
    "connection_lost": "The call may have run; look before you repeat it.",
    "protocol_error": "Check that an Apothic cloud of a fitting version answers there: `apothic doctor`.",
    "file_changed": "Run the command again.",
}


_KIND = re.compile(r"\bno (?:such )?(job|deployment|schedule|worker|join token|profile|version)\b")


class Stopped(Exception):
    """Ends a command with an exit code after it has said why."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Interrupted(Exception):
    """Ctrl-C ended a wait; the message says what became of the job, if it was about one.

    Attributes:
        status: Of the job when it has ended.
    """

    def __init__(self, message: str, *, job_id: str | None, status: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.status = status


class ReaderLeft(Interrupted):
    """Nobody reads the output any more, for example because `head` has enough."""


_INTERRUPTS = (KeyboardInterrupt, click.Abort, Interrupted)


def report(error: BaseException, settings: Settings) -> int:
    """Say what went wrong on stderr and return the exit code."""
    if isinstance(error, Stopped):
        return error.exit_code
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return error.code or 0
    if isinstance(error, (BrokenPipeError, ReaderLeft)):
        _close_stdout()
    if isinstance(error, BrokenPipeError):
        return ERROR
    with suppress(BrokenPipeError):  # stderr may be the same pipe
        if settings.is_debug:
            traceback.print_exception(error)
        if settings.is_for_programs:
            say(json.dumps({"error": as_json(error)}))
        else:
            _say_error(error)
    return exit_code(error)


def exit_code(error: BaseException) -> int:
    """Return the documented exit code of an error."""
    if isinstance(error, ReaderLeft):
        return ERROR
    if isinstance(error, _INTERRUPTS):
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, JobTimeoutError) and error.is_final:
        return REMOTE_FAILED
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), ERROR)


def as_json(error: BaseException) -> dict[str, Any]:
    """Return the JSON form of an error; `code` and `detail` are always there."""
    found: dict[str, Any] = {"code": _code(error), "detail": _detail(error), "exit_code": exit_code(error)}
    if isinstance(error, ApothicError):
        found |= {"request_id": error.request_id, "retryable": error.retryable, "hint": _hint(error)}
    if isinstance(error, (Interrupted, JobCancelledError, JobTimeoutError, RemoteExecutionError)):
        found["job_id"] = error.job_id
    if isinstance(error, RemoteExecutionError):
        found |= _remote_json(error)
    return found


def _remote_json(error: RemoteExecutionError) -> dict[str, Any]:
    return {
        "type": error.type_name,
        "message": error.message,
        "traceback": error.traceback,
        "causes": [_remote_json(cause) for cause in error.causes],
    }


def _code(error: BaseException) -> str:
    if isinstance(error, ApothicError):
        return error.code
    if isinstance(error, ReaderLeft):
        return "reader_left"
    if isinstance(error, _INTERRUPTS):
        return "interrupted"
    if isinstance(error, click.UsageError):
        return "usage"
    if isinstance(error, click.ClickException):
        return str(getattr(error, "code", "error"))
    return "internal"


def _detail(error: BaseException) -> Any:
    if isinstance(error, RemoteExecutionError):
        return f"{error.type_name}: {error.message}"
    if isinstance(error, ApothicError):
        return cast("list[Any]", error.detail) if isinstance(error.detail, list) else str(error)
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, ReaderLeft):
        return f"Nobody reads the output any more; {error}"
    if isinstance(error, _INTERRUPTS):
        return str(error) or "Interrupted."
    return f"Unexpected {type(error).__name__}: {error}"


def _hint(error: ApothicError) -> str | None:
    if isinstance(error, JobTimeoutError) and not error.is_final and error.job_id:
        return f"`apothic job status {error.job_id}` shows how it goes on, `apothic job cancel {error.job_id}` ends it."
    if error.code == "not_found":
        return _where_to_look(str(error))
    return _HINTS.get(error.code)


def _where_to_look(message: str) -> str:
    """Return what lists the things of the kind that a message names."""
    named = _KIND.search(message.lower())
    kind = named[1] if named is not None else "app"
    if kind == "join token":
        return "`apothic worker token --list` shows those that a worker can still join with."
    if kind == "profile":
        return "`apothic profile list` shows the clouds you use from here."
    if kind == "version":
        return "`apothic history APP` lists the versions."
    return f"`apothic {kind} list` shows the {kind}s of your key's organisation."


def _say_error(error: BaseException) -> None:
    if isinstance(error, _INTERRUPTS):
        say(_detail(error))
        return
    if isinstance(error, RemoteExecutionError):
        _say_remote(error)
        return
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        say(error.format_message())
        return
    say(f"Error: {error if isinstance(error, ApothicError) else _detail(error)}")
    hint = _hint(error) if isinstance(error, ApothicError) else _click_hint(error)
    if hint:
        say(f"Try:   {hint}")
    if isinstance(error, ApothicError) and error.request_id:
        say(f"Request id: {error.request_id}")


def _say_remote(error: RemoteExecutionError) -> None:
    if error.code != "exception" and not error.traceback:
        about = f"{error.job_id} ended without a result: " if error.job_id else ""
        say(f"Error: {about}{error.message} [{error.code}]")
        if hint := _hint(error):
            say(f"Try:   {hint}")
        return
    say(error.traceback.rstrip() or f"{error.type_name}: {error.message}")
    for cause in error.causes:
        say(f"\nCaused by:\n{cause.traceback.rstrip() or f'{cause.type_name}: {cause.message}'}")
    about = f" in {error.job_id}" if error.job_id else ""
    say(f"\nError: the function failed{about}: {error.type_name}: {error.message} [{error.code}]")


def _click_hint(error: BaseException) -> str | None:
    if isinstance(error, click.UsageError):
        return f"`{error.ctx.command_path if error.ctx else 'apothic'} --help`"
    if isinstance(error, click.ClickException):
        return None
    return "Run it again with --debug and report what it prints."


def _close_stdout() -> None:
    """Give up on a reader that left, so that nothing complains when the process ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
