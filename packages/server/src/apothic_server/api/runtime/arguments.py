"""Reads the arguments of a call: plain JSON, or one frame whose bytes stay opaque (G19.3)."""

from __future__ import annotations

import json
import re
from typing import Any

from apothic.wire.frames import FrameError, decode_frame, split_frame
from apothic.wire.large import LARGE, Reference
from apothic.wire.limits import VALUE_MAX
from apothic.wire.values import CALL_TYPE, ENCODINGS, Value
from apothic_server.api.shared.bodies import as_array, as_object, invalid_body, parse_json, unknown_fields
from apothic_server.domain.errors import Invalid, TooLarge, problem

_HEAD_FIELDS = ("encoding", "python")
_BODY_FIELDS = ("args", "kwargs")
_KNOWN_HEAD_MAX = 64
_KNOWN_HEADS_MAX = 64
_known_heads: dict[bytes, tuple[str, str | None]] = {}
"""Heads of frames that were found good, whatever their data: clients send few different ones."""

PYTHON = re.compile(r"3\.[0-9]{1,2}")


def read_arguments(body: bytes, media_type: str) -> Value:
    """Return the encoded `[args, kwargs]` of a call body.

    Raises:
        Invalid: The body does not hold a call.
        TooLarge: The value exceeds `VALUE_MAX`, code `value_too_large`.
    """
    value = _from_frame(body) if media_type == CALL_TYPE else _from_json(body)
    if len(value.data) > VALUE_MAX:
        raise TooLarge(f"The encoded arguments exceed {VALUE_MAX} bytes.", code="value_too_large")
    return value


def _from_frame(body: bytes) -> Value:
    try:
        text, data = split_frame(body)
        known = _known_heads.get(text)
        if known is not None:
            return Value(known[0], data, known[1])
        head, data = decode_frame(body)
    except FrameError as error:
        raise invalid_body(f"is not one frame: {error}", "frame_invalid") from None
    encoding, python = head.get("encoding"), head.get("python")
    problems = unknown_fields(head, _HEAD_FIELDS, ["body"])
    if encoding not in ENCODINGS:
        problems.append(problem(["body", "encoding"], f"must be {' or '.join(ENCODINGS)}", "unknown_encoding"))
    if encoding == LARGE and not _is_reference(data):
        problems.append(problem(["body"], "must be the digest, a space and the size of a large value", "pattern"))
    if python is not None and not (isinstance(python, str) and PYTHON.fullmatch(python)):
        problems.append(problem(["body", "python"], "must be null or a version like 3.11", "pattern"))
    _refuse(problems)
    if encoding != LARGE and len(text) <= _KNOWN_HEAD_MAX and len(_known_heads) < _KNOWN_HEADS_MAX:
        _known_heads[text] = (str(encoding), python)
    return Value(str(encoding), data, python)


def _is_reference(data: bytes) -> bool:
    try:
        Reference.parse(data)
    except ValueError:
        return False
    return True


def _from_json(body: bytes) -> Value:
    data = as_object(parse_json(body))
    if data is None:
        raise invalid_body('must be an object like {"args": [], "kwargs": {}}', "wrong_type")
    problems = unknown_fields(data, _BODY_FIELDS, ["body"])
    args, kwargs = data.get("args", []), data.get("kwargs", {})
    if as_array(args) is None:
        problems.append(problem(["body", "args"], "must be an array", "wrong_type"))
    if as_object(kwargs) is None:
        problems.append(problem(["body", "kwargs"], "must be an object", "wrong_type"))
    _refuse(problems)
    return Value("json", _encode([args, kwargs]))


def _encode(value: Any) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise invalid_body("holds text with half a surrogate pair", "text_invalid") from None
    except ValueError:
        raise invalid_body("holds a number that is too large", "number_invalid") from None


def _refuse(problems: list[dict[str, Any]]) -> None:
    if problems:
        raise Invalid("The call is not valid.", problems=problems)
