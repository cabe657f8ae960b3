"""The type of a pickled value, told from its instructions. Nothing is imported, called or built (G19.3).

The instructions are walked with a stack that holds a name for each value. What a name cannot be told for is `object`.
"""

from __future__ import annotations

import pickletools
from typing import Any

from apothic.wire.large import LARGE, Reference
from apothic.wire.values import Value

UNKNOWN = "object"
_MARK = object()

_BUILT = {
    "EMPTY_LIST": "list", "EMPTY_TUPLE": "tuple", "EMPTY_DICT": "dict", "EMPTY_SET": "set", "TUPLE": "tuple",
    "TUPLE1": "tuple", "TUPLE2": "tuple", "TUPLE3": "tuple", "LIST": "list", "DICT": "dict", "FROZENSET": "frozenset",
    "NONE": "None", "NEWTRUE": "bool", "NEWFALSE": "bool",
}  # fmt: skip
_UNCHANGED = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
_INSTANCES = frozenset({"REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST"})


class _Global(str):
    """The name of a class or function that an instruction looks up."""

    __slots__ = ()


class _Arguments(str):
    """A tuple whose first element is a class, as helpers that rebuild an object take it."""

    __slots__ = ("first",)
    first: str


class _Text(str):
    """A text constant, kept because it may name a module or a class."""

    __slots__ = ()


def shape(value: Value) -> tuple[str, int]:
    """Return the type of a value that is no JSON, and its size in bytes; `large value` for one that was uploaded."""
    if value.encoding != LARGE:
        return type_name(value.data), len(value.data)
    try:
        return "large value", Reference.parse(value.data).size_bytes
    except ValueError:
        return UNKNOWN, 0


def type_name(data: bytes) -> str:
    """Return the type of the value in `data`, such as `decimal.Decimal`; `object` when it cannot be told."""
    try:
        found = _walk(data)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        return UNKNOWN
    if isinstance(found, _Text):
        return "str"
    return "type" if isinstance(found, _Global) else str(found)


def _walk(data: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name == "STOP":
            return stack[-1]
        if name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in {"PUT", "BINPUT", "LONG_BINPUT"}:
            memo[_index(argument)] = stack[-1]
        elif name in {"GET", "BINGET", "LONG_BINGET"}:
            stack.append(memo[_index(argument)])
        elif name == "MARK":
            stack.append(_MARK)
        else:
            taken = _take(stack, opcode)
            stack.extend(_give(opcode, argument, taken))
    raise ValueError("no end")


def _index(argument: Any) -> int:
    return int(argument)


def _take(stack: list[Any], opcode: pickletools.OpcodeInfo) -> list[Any]:
    """Remove and return what an instruction takes from the stack, without the mark."""
    wanted = list(opcode.stack_before)
    taken: list[Any] = []
    if pickletools.markobject in wanted:
        while (top := stack.pop()) is not _MARK:
            taken.insert(0, top)
        wanted = wanted[: wanted.index(pickletools.markobject)]
    for _ in wanted:
        taken.insert(0, stack.pop())
    return taken


def _give(opcode: pickletools.OpcodeInfo, argument: Any, taken: list[Any]) -> list[Any]:
    """Return what an instruction puts onto the stack."""
    name = opcode.name
    if not opcode.stack_after:
        return []
    if name in _UNCHANGED:
        return taken[:1]
    if name in {"STACK_GLOBAL", "GLOBAL"}:
        parts = taken if name == "STACK_GLOBAL" else str(argument).split(" ")
        return [_Global(".".join(part for part in parts if part != "builtins"))]
    if name in _INSTANCES:
        return [_instance(name, argument, taken)]
    if name.startswith("TUPLE") and taken and isinstance(taken[0], _Global):
        return [_with_first(taken[0])]
    if name in _BUILT:
        return [_BUILT[name]]
    if "UNICODE" in name:
        return [_Text(argument)]
    return [_constant(argument)] * len(opcode.stack_after)


def _instance(name: str, argument: Any, taken: list[Any]) -> str:
    if name == "INST":
        return str(argument).replace(" ", ".")
    made_by = taken[0]
    if not isinstance(made_by, _Global):
        return UNKNOWN
    # Early 3.11 pickles a member of an enum as getattr(class, name).
    is_helper = made_by == "getattr" or made_by.rpartition(".")[2].startswith("_")
    return taken[1].first if is_helper and isinstance(taken[1], _Arguments) else str(made_by)


def _with_first(first: str) -> _Arguments:
    arguments = _Arguments("tuple")
    arguments.first = str(first)
    return arguments


def _constant(argument: Any) -> str:
    return type(argument).__name__ if isinstance(argument, (bool, int, float, bytes, bytearray, str)) else UNKNOWN
