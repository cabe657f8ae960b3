"""A runner: says hello, waits for its limits, resolves its function, serves calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from apothic._loading import enter_runner, load_module
from apothic._runtime.channel import Channel
from apothic._runtime.errors import describe
from apothic._runtime.output import flush_streams
from apothic._runtime.serial import serve_serially
from apothic._runtime.start import RunnerStart
from apothic.wire.runner import error_to_json
from apothic.wire.values import RemoteError


def main(start: RunnerStart) -> None:
    """Run until the worker says `stop` or closes the connection; returning ends the process with code 0.

    Raises:
        SystemExit: The app could not be loaded; the worker has been told.
    """
    channel = Channel(start.sock)
    channel.send({"kind": "hello"})
    if not _was_told_to_go(channel):
        return
    function = _load(start)
    flush_streams()
    if isinstance(function, RemoteError):
        channel.send({"kind": "load_failed", "error": error_to_json(function)})
        raise SystemExit(1)
    channel.send({"kind": "ready"})
    try:
        _serve(channel, function, start)
    except OSError as error:
        raise SystemExit(1) from error


def _was_told_to_go(channel: Channel) -> bool:
    frame = channel.receive()
    return frame is not None and frame[0]["kind"] == "go"


def _load(start: RunnerStart) -> Callable[..., Any] | RemoteError:
    enter_runner()
    try:
        module = load_module(start.root, start.module)
    except BaseException as error:
        return describe(error, "load_failed")
    return _resolve(module, start.qualname)


def _resolve(module: Any, qualname: str) -> Callable[..., Any] | RemoteError:
    found = module
    try:
        for name in qualname.split("."):
            found = getattr(found, name)
        found = getattr(found, "python_function", found)
    except BaseException:  # attribute access can be user code
        found = None
    if callable(found):
        return found
    message = (
        f"module {module.__name__!r} has no function {qualname!r} after it was loaded; "
        "definitions below app.deploy() or a remote call are not reached"
    )
    return RemoteError(type="builtins.AttributeError", message=message, code="load_failed")


def _serve(channel: Channel, function: Callable[..., Any], start: RunnerStart) -> None:
    is_async = start.is_async or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    if start.tasks <= 1:
        serve_serially(channel, function, is_async=is_async)
    elif is_async:
        from apothic._runtime.tasks import serve_as_tasks

        serve_as_tasks(channel, function)
    else:
        from apothic._runtime.threads import serve_in_threads

        serve_in_threads(channel, function, tasks=start.tasks)
