"""HTTP/1.1 from the client's side, without I/O: request bytes out, an answer parsed from bytes in any cut.

The reader is strict where leniency lets two parsers disagree: exact line ends, no folded headers, one length only, no
other transfer coding than chunked. Redirects and content codings are the caller's business; none is ever asked for.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from apothic.wire.limits import HEADER_BLOCK_MAX

CHUNK_LINE_MAX = 1024
INFORMATIONAL_MAX = 8
"""Interim 1xx answers accepted before the real one."""

_STATUS = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t -\xff]*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
_HEADERS = re.compile(r"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*)*")
_HEADER = re.compile(r"\r\n([^:]*):([^\r]*)")
_DIGITS = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[\t ]*(?:;[\t -~\x80-\xff]*)?")
_METHOD = re.compile(r"[A-Z]{1,16}")
_TARGET = re.compile(r"/[!-~]*")


class MalformedAnswerError(ValueError):
    """The bytes are not an HTTP/1.1 answer, or it was cut off."""


class FileBody(NamedTuple):
    """A request body that is read piece by piece while it is sent.

    Attributes:
        size: Exact number of bytes of all pieces.
        pieces: Returns a fresh iterator over the body, so that a request can be repeated.
    """

    size: int
    pieces: Callable[[], Iterator[bytes | memoryview]]


class Request(NamedTuple):
    """One request.

    Attributes:
        method: Upper-case method.
        path: Path as sent, percent-encoded, query included.
        headers: Further headers; the connection adds `Host`, `Authorization`, `User-Agent` and `Content-Length`.
        body: Bytes, a `FileBody`, or None for no body.
        is_repeatable: Sending it twice has the effect of sending it once.
        waits_for_room: A 429 or 503 that says so is waited for and repeated.
        key: Idempotency key: the server gives every request with it the effect of the first one. Empty for none.
        is_again: The key may have been sent before.
        on_interrupt: Asked when Ctrl-C comes before the answer's head; True means to go on waiting for it.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | FileBody | None = None
    is_repeatable: bool = False
    waits_for_room: bool = True
    key: str = ""
    is_again: bool = False
    on_interrupt: Callable[[], bool] | None = None


class Response(NamedTuple):
    """One answer, read to its end.

    Attributes:
        status: HTTP status.
        headers: Names in lower case; repeated headers are joined by a comma.
        body: The body.
    """

    status: int
    headers: dict[str, str]
    body: bytes


def encode_head(request: Request, common: str) -> bytes:
    """Return the head of `request`; `common` holds finished header lines that every request carries.

    Raises:
        ValueError: A method, path or header cannot be sent.
    """
    head = _head_start(request.method, request.path, request.headers, common)
    if request.key:
        head += f"Idempotency-Key: {request.key}\r\nIdempotency-Try: {'again' if request.is_again else 'first'}\r\n"
    size = _body_size(request)
    return (f"{head}\r\n" if size is None else f"{head}Content-Length: {size}\r\n\r\n").encode()


@functools.lru_cache(maxsize=64)
def _head_start(method: str, path: str, headers: tuple[tuple[str, str], ...], common: str) -> str:
    """Return the lines that requests of the same kind share; most calls of a process are of few kinds."""
    if not _METHOD.fullmatch(method) or not _TARGET.fullmatch(path):
        raise ValueError("a method is upper-case letters, a path begins with / and is percent-encoded")
    lines = [f"{method} {path} HTTP/1.1\r\n", common]
    for name, value in headers:
        if not _NAME.fullmatch(name.encode()) or not _VALUE.fullmatch(value.encode("utf-8", "surrogatepass")):
            raise ValueError(f"header {name!r} cannot be sent")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines)


def _body_size(request: Request) -> int | None:
    if request.body is None:
        return 0 if request.method in {"POST", "PUT", "PATCH"} else None
    return request.body.size if isinstance(request.body, FileBody) else len(request.body)


class AnswerReader:
    """Parses one answer from bytes in any cut.

    Args:
        method: Method of the request; the answer to HEAD has no body.
        body_max: Largest body in bytes; None for a stream whose reader has its own limit.

    Attributes:
        status: 0 until the head is complete.
        headers: As in `Response`; empty until the head is complete.
        is_done: The answer was read to its end.
        can_reuse: The connection may carry another request; meaningful when `is_done`.
    """

    def __init__(self, method: str, *, body_max: int | None) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_done = False
        self.can_reuse = False
        self._method = method
        self._body_max = body_max
        self._body_size = 0
        self._buffer = bytearray()
        self._missing = 0
        self._informational = 0
        self._trailer_size = 0
        self._ends_with_stream = False
        self._step: Callable[[list[bytes]], bool] = self._read_head

    def feed(self, data: bytes) -> bytes:
        """Add received bytes and return the body bytes that they complete.

        Raises:
            MalformedAnswerError: The bytes are no answer; the connection cannot be used further.
        """
        self._buffer += data
        body: list[bytes] = []
        while not self.is_done and self._step(body):
            pass
        if self.is_done and self._buffer:
            raise MalformedAnswerError("bytes after the end of the answer")
        return body[0] if len(body) == 1 else b"".join(body)

    def feed_end(self) -> None:
        """Say that the stream ended.

        Raises:
            MalformedAnswerError: The answer was not complete.
        """
        if self._ends_with_stream:
            self.is_done = True
        if not self.is_done:
            raise MalformedAnswerError("the answer was cut off")

    def _read_head(self, _: list[bytes]) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end > HEADER_BLOCK_MAX or (end < 0 and len(self._buffer) > HEADER_BLOCK_MAX):
            raise MalformedAnswerError("the header block is too large")
        if end < 0:
            return False
        head = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 4]
        match = _STATUS.match(head)
        if match is None:
            raise MalformedAnswerError("no HTTP/1.1 status line")
        status, is_old = int(match[2]), match[1] == "0"
        headers = _parse_headers(head[match.end() :])
        if status < 200:
            return self._skip_informational(status)
        self.status, self.headers = status, headers
        self.can_reuse = _keeps_alive(headers, is_old=is_old)
        self._choose_body()
        return True

    def _skip_informational(self, status: int) -> bool:
        self._informational += 1
        if status == 101 or self._informational > INFORMATIONAL_MAX:
            raise MalformedAnswerError("unexpected interim answer")
        return True

    def _choose_body(self) -> None:
        coding, length = self.headers.get("transfer-encoding"), self.headers.get("content-length")
        if coding is not None and (length is not None or coding.lower() != "chunked"):
            raise MalformedAnswerError("an unknown or contradictory body length")
        size = None if length is None else _parse_length(length)
        if self._method == "HEAD" or self.status in {204, 304} or size == 0:
            self.is_done = True
        elif coding is not None:
            self._step = self._read_chunk_size
        elif size is not None:
            self._count(size)
            self._missing = size
            self._step = self._read_fixed
        else:
            self._ends_with_stream, self.can_reuse = True, False
            self._step = self._read_until_end

    def _read_fixed(self, body: list[bytes]) -> bool:
        if len(self._buffer) == self._missing:
            body.append(bytes(self._buffer))
            self._buffer.clear()
            self._missing = 0
        else:
            self._take(body)
        self.is_done = self._missing == 0
        return False

    def _read_until_end(self, body: list[bytes]) -> bool:
        self._count(len(self._buffer))
        body.append(bytes(self._buffer))
        self._buffer.clear()
        return False

    def _read_chunk_size(self, _: list[bytes]) -> bool:
        line = self._take_line(CHUNK_LINE_MAX)
        if line is None:
            return False
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise MalformedAnswerError("no chunk size")
        self._missing = int(match[1], 16)
        self._count(self._missing)
        self._step = self._read_chunk if self._missing else self._read_trailer
        return True

    def _read_chunk(self, body: list[bytes]) -> bool:
        self._take(body)
        if self._missing:
            return False
        self._step = self._read_chunk_end
        return True

    def _read_chunk_end(self, _: list[bytes]) -> bool:
        if len(self._buffer) < 2 and b"\r\n".startswith(self._buffer):
            return False
        if not self._buffer.startswith(b"\r\n"):
            raise MalformedAnswerError("a chunk is longer than it said")
        del self._buffer[:2]
        self._step = self._read_chunk_size
        return True

    def _read_trailer(self, _: list[bytes]) -> bool:
        line = self._take_line(HEADER_BLOCK_MAX - self._trailer_size)
        if line is None:
            return False
        self._trailer_size += len(line) + 2
        if line:
            _parse_headers("\r\n" + line.decode("latin-1"))
        self.is_done = not line
        return True

    def _take(self, body: list[bytes]) -> None:
        piece = bytes(memoryview(self._buffer)[: self._missing])
        del self._buffer[: len(piece)]
        self._missing -= len(piece)
        if piece:
            body.append(piece)

    def _take_line(self, size_max: int) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end > size_max or (end < 0 and len(self._buffer) > size_max + 1):
            raise MalformedAnswerError("a line is too long")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _count(self, size: int) -> None:
        self._body_size += size
        if self._body_max is not None and self._body_size > self._body_max:
            raise MalformedAnswerError(f"the body is larger than {self._body_max:,} bytes")


def _parse_headers(lines: str) -> dict[str, str]:
    """Return the headers of lines that each begin with their line end."""
    if not _HEADERS.fullmatch(lines):
        raise MalformedAnswerError("a header line is malformed")
    found = _HEADER.findall(lines)
    headers = {name.lower(): value.strip(" \t") for name, value in found}
    if len(headers) == len(found):
        return headers
    joined: dict[str, str] = {}
    for name, value in ((name.lower(), value.strip(" \t")) for name, value in found):
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _parse_length(text: str) -> int:
    if _DIGITS.fullmatch(text):
        return int(text)
    values = {part.strip() for part in text.split(",")}
    value = values.pop()
    if values or not _DIGITS.fullmatch(value):
        raise MalformedAnswerError("an unknown or contradictory body length")
    return int(value)


def _keeps_alive(headers: dict[str, str], *, is_old: bool) -> bool:
    if "connection" not in headers:
        return not is_old
    options = {option.strip().lower() for option in headers["connection"].split(",")}
    return "close" not in options and not is_old
