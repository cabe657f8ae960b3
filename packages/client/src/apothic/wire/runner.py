"""Frames between worker and runtime (`apothic.wire.frames` over Unix sockets); heads are JSON objects with a `kind`.

Zygote control socket (worker → zygote, file descriptors travel beside the frame):

    {"kind": "load", "protocol", "path", "module", "app_variable", "preload": bool}       once, first
    {"kind": "fork", "runner", "function", "qualname", "tasks", "is_async", "memory_mb"}  with [socket, stdout, stderr]
    {"kind": "kill", "runner", "signal"}                                                  to the runner's whole tree
  (zygote → worker)
    {"kind": "ready", "python", "preloaded": bool, "reason": str | null}    answer to load
    {"kind": "load_failed", "error": …}                                     answer to load; see RemoteError
    {"kind": "forked", "runner", "pid"}                                     pid as the zygote sees it
    {"kind": "exited", "runner", "code": int | null, "signal": int | null}  after nothing of its tree is left

Runner socket (worker → runner):

    {"kind": "go"}                                       limits are in place; sent once, before any call
    {"kind": "call", "call": str, "job": str, "attempt": int, "encoding", "python"} + arguments as body
      items of a map have "items": {"group", "first", "count", "spread"} too; the body is packed (`apothic.wire.chunks`)
      calls of a batch follow each other and have "batch": calls of it that are still to come; after the last one, with
      0, the function is called once for all, and each call is answered with "result" or "error"
    {"kind": "take_back", "call": str}                   begin no further item of the call; ignored by single calls
    {"kind": "cancel", "call": str}                      only with several tasks at once
    {"kind": "items_taken", "call": str, "upto": int}    items below this ordinal are kept; the window moves on
    {"kind": "stop"}                                     finish what runs, then exit 0
  (runner → worker)
    {"kind": "hello"}                                    first; the worker reads the sender's pid from its credentials
    {"kind": "ready"} / {"kind": "load_failed", "error": …}
    {"kind": "log", "call", "stream", "text"}            only with several tasks at once: text of exactly this call
    {"kind": "log", "call", "item", "stream", "text"}    of one of several items of a map, by its offset in the call
    {"kind": "done", "call", "count", "is_last": bool, "python"} + packed outcomes of the next `count` items as body;
      in place of result; less than all items were executed when the last one leaves some
    {"kind": "items", "call", "first", "count", "encoding", "python"} + batch as body (`apothic.wire.items`)
    {"kind": "result", "call", "encoding", "python"} + value as body
    {"kind": "error", "call", "error": …}
"""

from __future__ import annotations

from typing import Any

from apothic.wire.limits import ERROR_CAUSES_MAX
from apothic.wire.values import RemoteError


def error_to_json(error: RemoteError) -> dict[str, Any]:
    """Return the JSON form of a `RemoteError`."""
    return {
        "type": error.type,
        "message": error.message,
        "traceback": error.traceback,
        "code": error.code,
        "causes": [error_to_json(cause) for cause in error.causes],
    }


def error_from_json(data: dict[str, Any]) -> RemoteError:
    """Return the `RemoteError` of a JSON form made by `error_to_json`.

    The form may come from user code: text that is no Unicode is replaced, causes beyond `ERROR_CAUSES_MAX` are left
    out, in number and in depth.

    Raises:
        KeyError, TypeError, AttributeError: It is no such form.
    """
    return _error(data, ERROR_CAUSES_MAX)


def _error(data: dict[str, Any], depth: int) -> RemoteError:
    causes = list(data.get("causes", ()))[:ERROR_CAUSES_MAX] if depth else []
    return RemoteError(
        type=_text(data["type"]),
        message=_text(data["message"]),
        traceback=_text(data.get("traceback", "")),
        code=_text(data.get("code", "exception")),
        causes=tuple(_error(cause, depth - 1) for cause in causes),
    )


def _text(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode()
