"""Small values as JSON text without white space; `json` alone builds an encoder for each of them."""

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
