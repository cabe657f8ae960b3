"""Exceptions of user code as data (`RemoteError`): bounded, without our own frames, whatever the exception does."""

from __future__ import annotations

import dataclasses
import json
import traceback
from pathlib import Path
from typing import Any

from apothic._runtime.context import JobCancelled
from apothic.wire.limits import ERROR_CAUSES_MAX, ERROR_MESSAGE_MAX, ERROR_TEXT_MAX
from apothic.wire.runner import error_to_json
from apothic.wire.values import RemoteError

_JSON_MAX = 120 * 1024
"""Size of a whole error as JSON: it must fit the head of a frame and one message of the control socket."""

_CAUSE_TEXT_MAX = 8 * 1024
_SMALLER_STEPS = 12
_OWN_FOLDER = str(Path(__file__).parent.parent) + "/"
_IMPORT_MACHINERY = "<frozen importlib"


def describe(error: BaseException, code: str | None = None) -> RemoteError:
    """Return `error` as data: type, message, traceback of user frames, and its causes.

    Never raises, however the exception misbehaves; sizes are cut until the whole fits a frame.

    Args:
        error: What was caught.
        code: Why the attempt failed; by default `exception`, `cancelled` for `JobCancelled`.
    """
    whole = _single(error, code or _code(error), ERROR_TEXT_MAX)
    causes = tuple(_single(cause, "exception", _CAUSE_TEXT_MAX) for cause in _causes(error))
    return _fitted(dataclasses.replace(whole, causes=causes))


def _code(error: BaseException) -> str:
    return "cancelled" if isinstance(error, JobCancelled) else "exception"


def _single(error: BaseException, code: str, text_max: int) -> RemoteError:
    return RemoteError(
        type=_cut_end(_type_name(error), ERROR_MESSAGE_MAX),
        message=_cut_end(_message(error), ERROR_MESSAGE_MAX),
        traceback=_cut_middle(_traceback(error), text_max),
        code=code,
    )


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return f"sys.exit({'' if error.code is None else int(error.code)}) was called"
    try:
        return str(error)
    except BaseException as failure:  # __str__ is user code
        return f"<its __str__ raised {type(failure).__name__}>"


def _traceback(error: BaseException) -> str:
    try:
        shown = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
        _keep_user_frames(shown)
        return "".join(shown.format(chain=False)) + _hint(error)
    except BaseException as failure:  # the exception's own methods are user code
        return f"<the traceback of {_type_name(error)} could not be formatted: {type(failure).__name__}>"


def _hint(error: BaseException) -> str:
    """Say why something that is there where the call came from is missing here; empty when it is no such error."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"Hint: no file of the app and no package of the function's image provides {error.name}.\n"
    if isinstance(error, FileNotFoundError) and isinstance(error.filename, str):
        folder = Path.cwd()
        if folder in (folder / error.filename).parents:
            return "Hint: of an app's folder only Python modules are uploaded; images add other files.\n"
    return ""


def _keep_user_frames(shown: Any) -> None:
    frames = [frame for frame in shown.stack if not frame.filename.startswith((_OWN_FOLDER, _IMPORT_MACHINERY))]
    shown.stack = traceback.StackSummary.from_list(frames)
    for member in getattr(shown, "exceptions", None) or ():  # members of an exception group, Python 3.11 and later
        _keep_user_frames(member)


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    seen = {id(error)}
    following = _cause(error)
    while following is not None and id(following) not in seen and len(found) < ERROR_CAUSES_MAX:
        found.append(following)
        seen.add(id(following))
        following = _cause(following)
    return found


def _cause(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None or error.__suppress_context__:
        return error.__cause__
    return error.__context__


def _cut_end(text: str, size_max: int) -> str:
    data = _encoded(text[: size_max + 1])
    if len(data) <= size_max:
        return data.decode()
    return data[: size_max - 4].decode(errors="ignore") + "…"


def _cut_middle(text: str, size_max: int) -> str:
    data = _encoded(text)
    if len(data) <= size_max:
        return data.decode()
    half = max(0, size_max - 64) // 2
    head, tail = data[:half].decode(errors="ignore"), data[len(data) - half :].decode(errors="ignore")
    return f"{head}\n… {len(data) - 2 * half} bytes cut …\n{tail}"


def _encoded(text: str) -> bytes:
    return str.encode(text, errors="backslashreplace").replace(b"\0", b"\\x00")


def _fitted(error: RemoteError) -> RemoteError:
    """Escaped as JSON a text can be six times as long, so cut until the whole fits."""
    for step in range(_SMALLER_STEPS):
        shorter = _shorter(error, step)
        if len(json.dumps(error_to_json(shorter))) <= _JSON_MAX:
            return shorter
    return RemoteError(type=error.type[:200], message="", code=error.code)


def _shorter(error: RemoteError, step: int) -> RemoteError:
    if step == 0:
        return error
    return dataclasses.replace(
        error,
        type=_cut_end(error.type, ERROR_MESSAGE_MAX >> step),
        message=_cut_end(error.message, ERROR_MESSAGE_MAX >> step),
        traceback=_cut_middle(error.traceback, ERROR_TEXT_MAX >> step),
        causes=tuple(_shorter(cause, step) for cause in error.causes),
    )
