"""The input of an item as the arguments of a call: `[args, kwargs]` around bytes that nobody reads here (G19.3)."""

from __future__ import annotations

from apothic.wire import chunks
from apothic.wire.values import Value

_STOP = b"."
_PAIR_OF_LIST = b"\x80\x05]]", b"aa}a."
"""Opcodes before an object, which becomes the only one of a list beside a dictionary, and those behind it."""

_PAIR_OF_ALL = b"\x80\x05]cbuiltins\nlist\n", b"\x85Ra}a."
"""The same for a list or tuple, of which a list is made."""


def call_of(entry: bytes, python: str | None, *, spread: bool) -> Value:
    """Return the arguments of a single call that does what an item does.

    A pickle is a program for a stack: without its end it leaves one object there, and ours goes on with it.

    Args:
        entry: Packed as `apothic.wire.chunks` says.
        spread: It holds all positional arguments, not the only one.
    """
    encoding, data = chunks.ENCODINGS.get(entry[:1], "json"), entry[1:]
    if encoding == "json":
        return Value(encoding, b"[" + data + b",{}]" if spread else b"[[" + data + b"],{}]", python)
    before, behind = _PAIR_OF_ALL if spread else _PAIR_OF_LIST
    return Value(encoding, before + data.removesuffix(_STOP) + behind, python)
