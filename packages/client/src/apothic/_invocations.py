"""What local and remote handles of functions do alike: call, start, start and watch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from apothic import _calls, _operations
from apothic._core import Core
from apothic._events import EventReader
from apothic._items import ItemEvents, ItemSource
from apothic._position import position
from apothic._ranges import seconds
from apothic._results import encode_call, received, result_of
from apothic._steps import Steps
from apothic.errors import InvalidRequestError
from apothic.wire.large import LARGE


def remote_call(
    core: Core, function_id: str, args: Sequence[Any], kwargs: Mapping[str, Any], timeout_s: float
) -> Steps[Any]:
    """Run a function and return its result, or raise what became of the job."""
    limit = seconds("timeout_s", timeout_s)
    outcome = yield from _calls.call(core, function_id, encode_call(args, kwargs), timeout_s=limit)
    if outcome.value is not None and outcome.value.encoding == LARGE:
        return (yield from received(core, outcome))
    return result_of(outcome, allow_pickle=core.allow_pickle)


def spawn_call(core: Core, function_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Steps[str]:
    """Create a job and return its id."""
    return _operations.spawn(core, function_id, encode_call(args, kwargs))


def event_reader(
    core: Core, function_id: str, args: Sequence[Any], kwargs: Mapping[str, Any], snapshot: Any, event_types: Any
) -> EventReader:
    """Return a reader that creates a job when it is first asked for events; wrong arguments are refused here."""
    begin = position(None, snapshot=snapshot, event_types=event_types)
    value = encode_call(args, kwargs)
    return EventReader(core, lambda: _operations.spawn(core, function_id, value), begin)


def item_source(
    core: Core, function_id: str, args: Sequence[Any], kwargs: Mapping[str, Any], timeout_s: float
) -> ItemSource:
    """Return the items of a job that is created when they are first asked for; wrong arguments are refused here."""
    limit = seconds("timeout_s", timeout_s)
    value = encode_call(args, kwargs)
    events = ItemEvents(core, lambda: _operations.spawn(core, function_id, value), -1, timeout_s=limit)
    return ItemSource(core, events, "raise")


def refuse_generator(name: str, *, is_generator: bool) -> None:
    """Raise InvalidRequestError for a generator, whose items `remote` would not return."""
    if is_generator:
        raise InvalidRequestError(
            f"{name} yields items; iterate over {name}.remote_gen(...), or spawn it and use wait_gen.",
            code="is_a_generator",
        )


def require_generator(name: str, *, is_generator: bool) -> None:
    """Raise InvalidRequestError for a function that yields nothing."""
    if not is_generator:
        raise InvalidRequestError(f"{name} yields no items; call it with {name}.remote(...).", code="not_a_generator")


def refuse_web_url(name: str) -> NoReturn:
    """Raise the error for a function that has no URL."""
    raise InvalidRequestError(f"{name} is a plain function and serves no URL.", code="not_a_service")
