"""One call: decode its arguments, run the function, encode what came out. User code never breaks out of here."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from inspect import isasyncgenfunction, isawaitable, isgeneratorfunction
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, NamedTuple, cast

from apothic._large import LargeBody, decode_large, encode_large_result
from apothic._runtime.errors import describe
from apothic._runtime.generate import ItemRefused, run_async_generator, run_generator
from apothic._runtime.items import ItemStream
from apothic._runtime.large import TransferFailed, keep, keep_async, open_value, open_value_async
from apothic._runtime.output import flush_streams
from apothic._serialize import NotSerializable, PythonMismatch, ValueTooLarge, decode, encode_result
from apothic.wire.chunks import ENCODINGS, unpack
from apothic.wire.large import LARGE, Reference
from apothic.wire.maps import ChunkOrder
from apothic.wire.runner import error_to_json
from apothic.wire.values import RemoteError, Value

OpenItems = Callable[[str], ItemStream]
"""Makes the stream of a call's items, given the call's name."""

_GENERATORS = (GeneratorType, AsyncGeneratorType)
_type: Callable[[object], type[object]] = type


class Call(NamedTuple):
    """A call as the worker sent it.

    Attributes:
        id: Names the call on this connection.
        job: Key of the job.
        attempt: Number of the attempt.
        arguments: Encodes `[args, kwargs]`, or as `form` says, or several items of a map.
        form: `call`; of an item of a map `item` when `arguments` encodes the only argument, `spread` when a list or
            tuple of all positional ones.
        items: What `arguments` holds when these are several items of a map.
    """

    id: str
    job: str
    attempt: int
    arguments: Value
    form: str = "call"
    items: ChunkOrder | None = None

    def of_item(self, offset: int, entry: bytes) -> Call:
        """Return the call of one of several items, given its entry."""
        assert self.items is not None
        job = f"{self.items.group}.{self.items.first + offset}"
        return Call(self.id, job, self.attempt, _argument(entry, self.arguments.python), self.form)


class Outcome(NamedTuple):
    """What became of a call: exactly one of both is set."""

    value: Value | None = None
    error: RemoteError | None = None


def read_call(head: dict[str, Any], body: bytes) -> Call:
    """Return the call that a `call` frame describes."""
    arguments = Value(str(head["encoding"]), body, head.get("python"))
    call = Call(str(head["call"]), str(head["job"]), int(head["attempt"]), arguments)
    items: dict[str, Any] | None = head.get("items")
    if items is None:
        return call
    order = ChunkOrder(str(items["group"]), int(items["first"]), int(items["count"]), bool(items["spread"]))
    form = "spread" if order.spread else "item"
    if order.count > 1:
        return call._replace(form=form, items=order)
    return call._replace(form=form, arguments=_argument(unpack(body)[0], arguments.python))


def _argument(entry: bytes, python: str | None) -> Value:
    return Value(ENCODINGS.get(entry[:1], "none"), entry[1:], python)


def reply(call: Call, outcome: Outcome) -> tuple[dict[str, Any], bytes]:
    """Return head and body of the frame that answers `call`."""
    if outcome.error is not None:
        return {"kind": "error", "call": call.id, "error": error_to_json(outcome.error)}, b""
    value = outcome.value or Value("json", b"null")
    return {"kind": "result", "call": call.id, "encoding": value.encoding, "python": value.python}, value.data


def run_call(
    function: Callable[..., Any], call: Call, drive: Callable[[Any], Any], open_items: OpenItems | None
) -> Outcome:
    """As `run_item`; what was printed has left this process then."""
    outcome = run_item(function, call, drive, open_items)
    flush_streams()
    return outcome


def run_item(
    function: Callable[..., Any], call: Call, drive: Callable[[Any], Any], open_items: OpenItems | None = None
) -> Outcome:
    """Run a synchronous function and return its outcome; `SystemExit` and `KeyboardInterrupt` are outcomes too.

    Args:
        function: The user's function.
        call: What to call it with.
        drive: Runs a coroutine to its end, for functions that return one without being `async def`.
        open_items: Makes the way of the items, for a generator; None refuses generators.
    """
    process = os.getpid()
    arguments = arguments_of(call)
    if isinstance(arguments, Outcome):
        return arguments
    try:
        outcome = outcome_of(_result(function, call, arguments, drive, open_items), call)
    except BaseException as error:
        leave_if_forked(process, error)
        outcome = _failed(error)
    leave_if_forked(process)
    return outcome


def _result(
    function: Callable[..., Any],
    call: Call,
    arguments: tuple[list[Any], dict[str, Any]],
    drive: Callable[[Any], Any],
    open_items: OpenItems | None,
) -> Any:
    result: Any = function(*arguments[0], **arguments[1])
    if type(result) is CoroutineType:
        return drive(result)
    if open_items is not None and _is_own(GeneratorType, isgeneratorfunction, function, result):
        return run_generator(result, open_items(call.id))
    return result


async def run_call_async(function: Callable[..., Any], call: Call, open_items: OpenItems | None) -> Outcome:
    """As `run_item_async`; what was printed has left this process then."""
    outcome = await run_item_async(function, call, open_items)
    flush_streams()
    return outcome


async def run_item_async(function: Callable[..., Any], call: Call, open_items: OpenItems | None = None) -> Outcome:
    """Run an `async def` function and return its outcome, like `run_item`."""
    process = os.getpid()
    try:
        opened = await _opened_async(call)
    except BaseException as error:  # cancelled meanwhile
        return _failed(error)
    arguments = _read_arguments(call, opened)
    if isinstance(arguments, Outcome):
        return arguments
    try:
        result: Any = function(*arguments[0], **arguments[1])
        if open_items is not None and _is_own(AsyncGeneratorType, isasyncgenfunction, function, result):
            result = run_async_generator(result, open_items(call.id))
        outcome = _encoded(await result if isawaitable(result) else result, call)
        if isinstance(outcome, LargeBody):
            outcome = await _kept_async(outcome)
    except BaseException as error:
        leave_if_forked(process, error)
        outcome = _failed(error)
    leave_if_forked(process)
    return outcome


def arguments_of(call: Call) -> tuple[list[Any], dict[str, Any]] | Outcome:
    """Return positional and named arguments of a call, or the outcome that it has because they cannot be read."""
    return _read_arguments(call, _opened(call) if call.arguments.encoding == LARGE else None)


def outcome_of(result: object, call: Call) -> Outcome:
    """Return the outcome of a call whose result this is."""
    outcome = _encoded(result, call)
    return _kept(outcome) if isinstance(outcome, LargeBody) else outcome


def _opened(call: Call) -> int | Outcome:
    """Return the file of large arguments."""
    try:
        return open_value(Reference.parse(call.arguments.data))
    except (TransferFailed, ValueError) as error:
        return _not_opened(error)


async def _opened_async(call: Call) -> int | Outcome | None:
    """Return the file of large arguments, None for small ones; the event loop goes on meanwhile."""
    if call.arguments.encoding != LARGE:
        return None
    try:
        return await open_value_async(Reference.parse(call.arguments.data))
    except (TransferFailed, ValueError) as error:
        return _not_opened(error)


def _not_opened(error: Exception) -> Outcome:
    return Outcome(
        error=describe(error, "transfer_failed" if isinstance(error, TransferFailed) else "arguments_unreadable")
    )


def _read_arguments(call: Call, opened: int | Outcome | None) -> tuple[list[Any], dict[str, Any]] | Outcome:
    if isinstance(opened, Outcome):
        return opened
    try:
        pair: Any = decode(call.arguments) if opened is None else decode_large(opened, call.arguments)
    except PythonMismatch as error:
        return Outcome(error=describe(error, "python_mismatch"))
    except BaseException as error:  # unpickling runs user code
        return Outcome(error=describe(error, "arguments_unreadable"))
    if call.form == "item":
        return [pair], {}
    if call.form == "spread":
        is_all = type(pair) in (list, tuple)
        return (list(pair), {}) if is_all else _unreadable("the item is no list or tuple of positional arguments")
    both: Any = pair if _type(pair) is list and len(pair) == 2 else (None, None)
    args, kwargs = both
    if _type(args) is list and _type(kwargs) is dict and (not kwargs or all(type(key) is str for key in kwargs)):
        return args, kwargs
    return _unreadable("the arguments are not a list and an object with text keys")


def _unreadable(message: str) -> Outcome:
    return Outcome(error=RemoteError(type="builtins.ValueError", message=message, code="arguments_unreadable"))


def _is_own(kind: type, makes: Callable[[Any], bool], function: Callable[..., Any], result: object) -> bool:
    """Whether `result` is a generator of this kind, and the function's own instead of one that it got elsewhere."""
    return type(result) is kind and makes(function)


def _failed(error: BaseException) -> Outcome:
    if isinstance(error, ItemRefused) and error.__cause__ is not None:
        return Outcome(error=describe(error.__cause__, error.code))
    return Outcome(error=describe(error))


def _encoded(result: object, call: Call) -> Outcome | LargeBody:
    """Return what to answer, or a value that is too large for an answer."""
    if isinstance(result, _GENERATORS):
        return _generator_refused(cast("Any", result))
    try:
        return Outcome(value=encode_result(result))
    except NotSerializable as error:
        return Outcome(error=describe(error, "result_unserializable"))
    except ValueTooLarge as error:
        if call.form != "call":
            return Outcome(error=describe(error, "result_too_large"))
    try:
        return encode_large_result(result)
    except NotSerializable as error:
        return Outcome(error=describe(error, "result_unserializable"))
    except ValueTooLarge as error:
        return Outcome(error=describe(error, "result_too_large"))


def _kept(body: LargeBody) -> Outcome:
    try:
        return Outcome(value=keep(body))
    except TransferFailed as error:
        return Outcome(error=describe(error, "transfer_failed"))


async def _kept_async(body: LargeBody) -> Outcome:
    try:
        return Outcome(value=await keep_async(body))
    except TransferFailed as error:
        return Outcome(error=describe(error, "transfer_failed"))


def _generator_refused(result: Any) -> Outcome:
    if isinstance(result, GeneratorType):
        cast("GeneratorType[Any, Any, Any]", result).close()
    message = "the function returned a generator made elsewhere; `yield` in the function itself, or return a list"
    return Outcome(error=RemoteError(type="builtins.TypeError", message=message, code="generator_not_supported"))


def leave_if_forked(process: int, error: BaseException | None = None) -> None:
    """End a process that user code forked and that came back here: the reply is its parent's to give."""
    if os.getpid() == process:
        return
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        traceback.print_exception(type(error), error, error.__traceback__, file=sys.stderr)
        code = 1
    flush_streams()
    os._exit(code & 0xFF)
