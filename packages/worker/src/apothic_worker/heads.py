"""Heads of HTTP/1.1 requests and answers as the relay takes and gives them.

A request comes from user code and is read strictly: what two parsers could read differently is refused, and what goes
on is written anew from the parts that were understood. An answer comes from the control plane.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from apothic.wire.attempts import CALL_HEADER

Headers = list[tuple[bytes, bytes]]

API = b"/v1/"
LINK = b"/v1/link"
"""For workers only."""

_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE"})
_TARGET = re.compile(rb"/[!-~]*")
_ODD = re.compile(rb"//|/\.{1,2}(?:/|$)|%2[efEF]|%5[cC]|\\")
"""What one reader of a path takes as it stands and another one resolves."""

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
_DIGITS = re.compile(rb"[0-9]{1,15}")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t -\xff]*))?")
_CALL = CALL_HEADER.lower().encode()
_HOP_BY_HOP = frozenset(
    {b"connection", b"content-length", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_NOT_FROM_USERS = frozenset({b"authorization", b"cookie", b"expect", b"forwarded", b"host"})
_PREFIXES_NOT_FROM_USERS = (b"x-apothic-", b"x-forwarded-", b"x-org-", b"proxy-")


class Refused(Exception):
    """A request that goes no further; what its sender is told."""

    def __init__(self, status: int, code: str, detail: str, *, is_retryable: bool = False) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.is_retryable = is_retryable


@dataclass(frozen=True)
class RequestHead:
    """A request that may go on.

    Attributes:
        headers: Those that go on; names in lower case.
        length: Bytes of the body.
        call: Which call of the runner makes it; empty when it does not say.
        keeps_alive: Another request may follow on the connection.
    """

    method: bytes
    target: bytes
    headers: Headers
    length: int
    call: str
    keeps_alive: bool


@dataclass(frozen=True)
class AnswerHead:
    """An answer of the control plane.

    Attributes:
        length: Bytes of the body; None when it is chunked or ends with the connection.
    """

    status: int
    reason: bytes
    headers: Headers
    length: int | None
    is_chunked: bool
    keeps_alive: bool

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the end of the connection ends the body."""
        return self.length is None and not self.is_chunked


def parse_request(block: bytes) -> RequestHead:
    """Return the request whose head is `block`, up to and with its empty line.

    Raises:
        Refused: It is no request, or none that user code may make.
    """
    first, *lines = block[:-4].split(b"\r\n")
    parts = first.split(b" ")
    if len(parts) != 3 or parts[0] not in _METHODS or not _TARGET.fullmatch(parts[1]) or parts[2] != b"HTTP/1.1":
        raise _malformed("the first line is no request of HTTP/1.1")
    method, target, _ = parts
    path = target.partition(b"?")[0]
    if _ODD.search(path):
        raise _malformed("its path has empty or dotted parts, or a slash that is escaped")
    if not path.startswith(API) or path == LINK or path.startswith(LINK + b"/"):
        raise Refused(404, "not_found", "Inside a function only the API below /v1/ can be reached.")
    headers = _parse(lines)
    named = dict(headers)
    if len(named) != len(headers) and _repeats(headers, b"content-length", b"transfer-encoding", _CALL):
        raise _malformed("a header that counts stands twice")
    if b"transfer-encoding" in named:
        raise Refused(411, "length_required", "Send a Content-Length; chunked bodies are not relayed.")
    kept = [(name, value) for name, value in headers if _may_go_on(name)]
    call = named.get(_CALL, b"").decode("latin-1")
    return RequestHead(method, target, kept, _length(named) or 0, call, _keeps_alive(named))


def parse_answer(block: bytes, method: bytes) -> AnswerHead:
    """Return the answer whose head is `block`, up to and with its empty line, to a request with `method`.

    Raises:
        ValueError: It is no answer of HTTP/1.1.
    """
    first, *lines = block[:-4].split(b"\r\n")
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        raise ValueError("no status line")
    try:
        headers = _parse(lines)
        named = dict(headers)
        length = _length(named)
    except Refused as error:
        raise ValueError(error.detail) from error
    status, is_chunked = int(match[2]), named.get(b"transfer-encoding", b"").lower() == b"chunked"
    if method == b"HEAD" or status in (204, 304):
        length, is_chunked = 0, False
    kept = [(name, value) for name, value in headers if name not in _HOP_BY_HOP]
    keeps_alive = _keeps_alive(named) and match[1] == b"1" and (is_chunked or length is not None)
    return AnswerHead(status, match[3] or b"", kept, None if is_chunked else length, is_chunked, keeps_alive)


def write_request(head: RequestHead, prefix: bytes, host: bytes, added: Headers) -> bytes:
    """Return the head that goes to the control plane at `host`, whose paths begin with `prefix`."""
    lines = [head.method + b" " + prefix + head.target + b" HTTP/1.1", b"host: " + host]
    lines += [name + b": " + value for name, value in (*head.headers, *added)]
    if head.length or head.method in (b"POST", b"PUT", b"PATCH"):
        lines.append(b"content-length: %d" % head.length)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def write_answer(head: AnswerHead, method: bytes, *, keeps_alive: bool) -> bytes:
    """Return the head that goes to user code."""
    lines = [b"HTTP/1.1 %d %b" % (head.status, head.reason)]
    lines += [name + b": " + value for name, value in head.headers]
    if head.is_chunked:
        lines.append(b"transfer-encoding: chunked")
    elif head.length is not None and method != b"HEAD" and head.status not in (204, 304):
        lines.append(b"content-length: %d" % head.length)
    lines.append(b"connection: keep-alive" if keeps_alive else b"connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _parse(lines: list[bytes]) -> Headers:
    headers: Headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise _malformed("a header line is malformed")
        headers.append((name.lower(), value))
    return headers


def _repeats(headers: Headers, *names: bytes) -> bool:
    seen = [name for name, _ in headers]
    return any(seen.count(name) > 1 for name in names)


def _may_go_on(name: bytes) -> bool:
    return name not in _HOP_BY_HOP and name not in _NOT_FROM_USERS and not name.startswith(_PREFIXES_NOT_FROM_USERS)


def _length(named: dict[bytes, bytes]) -> int | None:
    text = named.get(b"content-length")
    if text is None:
        return None
    if not _DIGITS.fullmatch(text):
        raise _malformed("Content-Length is no length")
    return int(text)


def _keeps_alive(named: dict[bytes, bytes]) -> bool:
    return b"close" not in [option.strip().lower() for option in named.get(b"connection", b"").split(b",")]


def _malformed(what: str) -> Refused:
    return Refused(400, "bad_request", f"This is no request that can be relayed: {what}.")
