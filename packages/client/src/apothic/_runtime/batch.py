"""A batch: several calls for which the function is called once, with lists. Each call has an outcome of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from inspect import Signature, isawaitable, signature
from typing import Any, NamedTuple

from apothic._batches import ResultMismatch, columns, results_of
from apothic._runtime.context import JobCancelled
from apothic._runtime.errors import describe
from apothic._runtime.invoke import Call, Outcome, arguments_of, leave_if_forked, outcome_of
from apothic._runtime.output import flush_streams
from apothic.wire.values import RemoteError


class _Member(NamedTuple):
    """A call of the batch: its place there, and its arguments."""

    place: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def run_batch(function: Callable[..., Any], calls: list[Call], drive: Callable[[Any], Any]) -> list[Outcome]:
    """Call the function for all calls at once and return the outcome of each; what was printed has left then.

    Calls that pass other arguments than the first ones do are executed after them, in a call of the function of their
    own: a list has a value for each call, or is not passed at all.

    Args:
        function: The user's function; it takes lists and returns one.
        calls: At least one.
        drive: Runs a coroutine to its end.
    """
    process = os.getpid()
    outcomes: list[Outcome] = [_NOT_RUN] * len(calls)
    members: list[_Member] = []
    for place, call in enumerate(calls):
        arguments = arguments_of(call)
        if isinstance(arguments, Outcome):
            outcomes[place] = arguments
        else:
            members.append(_Member(place, tuple(arguments[0]), arguments[1]))
    cancelled: JobCancelled | None = None
    for alike in _alike(function, members, outcomes):
        try:
            if cancelled is not None:
                raise cancelled
            results = _results(function, alike, drive)
        except BaseException as error:
            leave_if_forked(process, error)
            cancelled = error if isinstance(error, JobCancelled) else None
            results = [_failure(error)] * len(alike)
        for member, result in zip(alike, results, strict=True):
            outcomes[member.place] = _outcome(result, calls[member.place])
    leave_if_forked(process)
    flush_streams()
    return outcomes


_NOT_RUN = Outcome(error=RemoteError(type="builtins.RuntimeError", message="the call was not executed"))


def _alike(function: Callable[..., Any], members: list[_Member], outcomes: list[Outcome]) -> list[list[_Member]]:
    """Return the calls by which arguments they pass; those that the function cannot take have their outcome then."""
    known = _signature(function) if any(member.kwargs for member in members) else None
    found: dict[tuple[int, tuple[str, ...]], list[_Member]] = {}
    for one in members:
        member = one
        if known is not None:
            try:
                bound = known.bind(*one.args, **one.kwargs)
            except TypeError as error:
                outcomes[one.place] = Outcome(error=describe(error))
                continue
            member = _Member(one.place, bound.args, bound.kwargs)
        found.setdefault((len(member.args), tuple(sorted(member.kwargs))), []).append(member)
    return list(found.values())


def _signature(function: Callable[..., Any]) -> Signature | None:
    try:
        return signature(function)
    except (TypeError, ValueError):  # code that hides it
        return None


def _results(function: Callable[..., Any], alike: list[_Member], drive: Callable[[Any], Any]) -> list[Any]:
    args, kwargs = columns([(member.args, member.kwargs) for member in alike])
    returned = function(*args, **kwargs)
    if isawaitable(returned):
        returned = drive(_awaited(returned))
    return results_of(returned, len(alike))


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _failure(error: BaseException) -> Outcome:
    if isinstance(error, ResultMismatch):
        return Outcome(error=RemoteError(type="builtins.ValueError", message=str(error), code="batch_result_mismatch"))
    return Outcome(error=describe(error))


def _outcome(result: Any, call: Call) -> Outcome:
    if isinstance(result, Outcome):
        return result
    if isinstance(result, Exception):
        return Outcome(error=describe(result))
    return outcome_of(result, call)
