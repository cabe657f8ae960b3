"""Request bodies before they mean anything: content types, lengths, and JSON that holds what it says.

JSON is refused when it nests too deep, repeats a key, or holds numbers or text that JSON or the store cannot carry.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any, NoReturn, cast

from apothic.wire.limits import JSON_DEPTH_MAX
from apothic_server.api.shared.errors import UnsupportedMediaType
from apothic_server.domain.errors import Invalid, TooLarge, problem

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_TO_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SHOWN_MAX = 64


def announces_body(headers: dict[bytes, bytes]) -> bool:
    """Whether a request has a body, or may have one."""
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def check_no_body(headers: dict[bytes, bytes]) -> None:
    """Refuse a body announced to an operation that takes none."""
    if announces_body(headers):
        raise invalid_body("must be empty: this operation takes no body", "body_unexpected")


def check_body_headers(headers: dict[bytes, bytes], accepts: tuple[str, ...], body_max: int) -> str:
    """Return the media type of the body.

    Raises:
        TooLarge: The announced length exceeds `body_max`; the real length is counted while reading.
        UnsupportedMediaType: The type is not accepted, or the body is compressed.
    """
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 18:
        raise Invalid("Bad Content-Length.", problems=[problem(["header", "content-length"], "is no length", "length")])
    if int(length) > body_max:
        raise TooLarge(f"The body exceeds {body_max} bytes.")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("Send the body uncompressed.")
    media_type = _media_type(headers.get(b"content-type", b""))
    if media_type not in accepts:
        raise UnsupportedMediaType(f"Send the body as {' or '.join(accepts)}.")
    return media_type


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON body in UTF-8.

    Raises:
        Invalid: It is no JSON, nests deeper than `JSON_DEPTH_MAX`, repeats a key, or holds a number too large.
    """
    try:
        value = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise invalid_body("is not UTF-8", "encoding_invalid") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise invalid_body("is not valid JSON", "json_invalid") from None
    if json_depth_exceeds(body, JSON_DEPTH_MAX):
        raise _too_deep()
    return value


def json_depth_exceeds(text: bytes, depth: int) -> bool:
    """Whether valid JSON nests deeper than `depth`; no Python loop runs over the text."""
    if text.count(b"[") + text.count(b"{") <= depth:
        return False
    brackets = _STRING.sub(b"", text).translate(_TO_SQUARE, _NOT_BRACKETS)
    for _ in range(depth):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def check_storable(value: Any, loc: list[str | int]) -> None:
    """Refuse text with NUL or lone surrogates and numbers that are not finite, anywhere in a parsed JSON value.

    Raises:
        Invalid: There is one.
    """
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str) and not _is_text(item):
            raise _problem(loc, "holds text with a NUL or half a surrogate pair", "text_invalid")
        if isinstance(item, float) and not math.isfinite(item):
            raise _problem(loc, "holds a number that is too large", "number_invalid")
        fields = as_object(item)
        if fields is not None:
            waiting.extend(fields)
            waiting.extend(fields.values())
        waiting.extend(as_array(item) or ())


def as_object(value: Any) -> dict[str, Any] | None:
    """Return a parsed JSON object, or None for any other value."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def as_array(value: Any) -> list[Any] | None:
    """Return a parsed JSON array, or None for any other value."""
    return cast("list[Any]", value) if isinstance(value, list) else None


def unknown_fields(value: dict[str, Any], known: Collection[str], loc: list[str | int]) -> list[dict[str, Any]]:
    """Return a problem for every key of `value` that is not in `known`."""
    extra = [key[:_SHOWN_MAX] for key in value if key not in known]
    return [problem([*loc, key], "is no field of this object", "unknown_field") for key in extra]


def invalid_body(msg: str, kind: str) -> Invalid:
    """Return the error about the body as a whole."""
    return _problem(["body"], msg, kind)


@lru_cache(maxsize=64)
def _media_type(header: bytes) -> str:
    """Return the type without its parameters, or nothing when it names another character set than UTF-8."""
    media_type, _, parameters = header.decode("latin-1").lower().partition(";")
    return "" if "charset" in parameters and "utf-8" not in parameters else media_type.strip()


def _problem(loc: list[str | int], msg: str, kind: str) -> Invalid:
    return Invalid(f"The body {msg}.", problems=[problem(loc, msg, kind)])


def _too_deep() -> Invalid:
    return invalid_body(f"nests deeper than {JSON_DEPTH_MAX}", "too_deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise invalid_body("holds an object with a repeated key", "repeated_key")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _is_text(text: str) -> bool:
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
