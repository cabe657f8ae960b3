"""Small values as JSON text without white space and back; `json` alone builds an encoder for each of them.

What runs for every call and seldom otherwise costs what it touches: each function less is about a microsecond.
"""

from __future__ import annotations

import json
import json.encoder
from collections.abc import Callable
from typing import Any


def encoder(*, ensure_ascii: bool = True, allow_nan: bool = True) -> Callable[[Any], str]:
    """Return what encodes as `json.JSONEncoder(...).encode`, without looking for circles.

    The function that it returns raises as `json` does: TypeError for what is no JSON, ValueError for NaN when that is
    not allowed, and RecursionError for what is too deep, circles among it.
    """
    plain = json.JSONEncoder(
        ensure_ascii=ensure_ascii, check_circular=False, allow_nan=allow_nan, separators=(",", ":")
    )
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    text: Any = json.encoder.encode_basestring_ascii if ensure_ascii else json.encoder.encode_basestring
    try:
        encode: Any = make(None, plain.default, text, None, ":", ",", False, False, allow_nan)
    except TypeError:  # another Python than CPython, or one that changed it
        return plain.encode
    return lambda value: "".join(encode(value, 0))


_decoder: Any = json.JSONDecoder()
_decode, _scan = _decoder.decode, _decoder.scan_once


def from_text(text: str) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: It is none.
        RecursionError: It is too deep.
    """
    try:
        found, end = _scan(text, 0)
    except StopIteration:  # white space before it, or no JSON
        return _decode(text)
    return found if end == len(text) else _decode(text)
