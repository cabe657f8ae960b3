"""One request on one connection and the answer to it, without I/O: dialling, TLS, sending, reading."""

from __future__ import annotations

from apothic._core import Core, Lost
from apothic._http import AnswerReader, FileBody, MalformedAnswerError, Request, encode_head
from apothic._steps import Dial, Line, Receive, Send, Steps
from apothic._tls import Tls
from apothic.wire.attempts import CALL_HEADER
from apothic.wire.limits import MIB

ANSWER_MAX = 64 * MIB
"""Largest answer that is read whole."""

DIAL_S_MAX = 10.0
"""Longest wait for one connection."""

INTERRUPT_GRACE_S = 5.0
"""Time that an interrupted call waits for its job's id, without which it could not be cancelled."""

GRACE_S = 2.0
"""Time to read an early answer after the server stopped reading a body."""


class Answer:
    """An answer whose head was read and whose body is still coming.

    Args:
        line: The connection; the answer owns it until `finish` or `close`.
    """

    def __init__(self, core: Core, line: Line, reader: AnswerReader, first: bytes) -> None:
        self._core = core
        self._line = line
        self._reader = reader
        self._first = first
        self._is_given_back = False

    @property
    def status(self) -> int:
        return self._reader.status

    @property
    def headers(self) -> dict[str, str]:
        return self._reader.headers

    @property
    def is_read(self) -> bool:
        """Whether the body was read to its end."""
        return self._reader.is_done and not self._first

    def take(self) -> bytes:
        """Return the body bytes that came with the head, once; `b""` when there are none."""
        first, self._first = self._first, b""
        return first

    def read(self, timeout_s: float) -> Steps[bytes]:
        """Return the next body bytes, `b""` at the end.

        Raises:
            Lost: The connection failed.
            TimeoutError: Nothing came within `timeout_s`; the answer can be read further.
        """
        if self._first:
            return self.take()
        while not self._reader.is_done:
            data = yield from _receive(self._line, timeout_s)
            body = _feed(self._reader, data)
            if body:
                return body
        return b""

    def read_all(self, deadline: float) -> Steps[bytes]:
        """Return the whole body and give the connection back.

        Raises:
            Lost: The connection failed or the deadline passed.
        """
        pieces: list[bytes] = []
        while True:
            try:
                piece = yield from self.read(_left(self._core, deadline))
            except TimeoutError as error:
                raise Lost(error, was_sent=True) from None
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)

    def finish(self) -> None:
        """Keep the connection for the next request when the answer was read to its end, else close it."""
        self._is_given_back = True
        if self._reader.is_done and self._reader.can_reuse:
            self._core.idle.put(self._line, self._core.clock())
        else:
            self._line.close()

    def close_unless_finished(self) -> None:
        """Close the connection, so that the server sees that nobody reads any more, unless it was given back."""
        if not self._is_given_back:
            self._line.close()


def open_answer(core: Core, request: Request, deadline: float, *, is_stream: bool) -> Steps[Answer]:
    """Send a request and return its answer, of which only the head was read.

    Raises:
        Lost: The connection failed or nothing came in time.
    """
    head = encode_head(request, core.common if core.endpoint.socket is None else core.common + _call_line())
    reader = AnswerReader(request.method, body_max=None if is_stream else ANSWER_MAX)
    line = core.idle.take(core.clock())
    if line is None:
        line = yield from _connect(core, deadline)
    try:
        was_sent = yield from _send_request(core, line, head, request.body, deadline)
        until = deadline if was_sent else core.clock() + GRACE_S
        first = yield from _read_head(core, line, reader, request, until, was_sent=was_sent)
    except BaseException:
        line.close()
        raise
    return Answer(core, line, reader, first)


def _call_line() -> str:
    """Return the header line that tells the worker which call of its runner asks; empty where that is not known."""
    from apothic._runtime.context import call_name

    name = call_name()
    return f"{CALL_HEADER}: {name}\r\n" if name else ""


def _connect(core: Core, deadline: float) -> Steps[Line]:
    endpoint = core.endpoint
    try:
        line: Line = yield Dial(endpoint.host, endpoint.port, min(_left(core, deadline), DIAL_S_MAX), endpoint.socket)
        if endpoint.scheme == "https":
            yield from _handshake(core, line, deadline)
    except OSError as error:
        raise Lost(error, was_sent=False) from error
    return line


def _handshake(core: Core, line: Line, deadline: float) -> Steps[None]:
    try:
        line.tls = Tls(core.endpoint.host)
        yield from _greet(core, line, line.tls, deadline)
    except BaseException:
        line.close()
        raise


def _greet(core: Core, line: Line, tls: Tls, deadline: float) -> Steps[None]:
    is_complete = False
    while not is_complete:
        try:
            is_complete = tls.handshake()
        finally:
            data = tls.outgoing()
        if data:
            yield Send(line, data, _left(core, deadline))
        if not is_complete:
            received: bytes = yield Receive(line, _left(core, deadline))
            tls.incoming(received)


def _send_request(core: Core, line: Line, head: bytes, body: bytes | FileBody | None, deadline: float) -> Steps[bool]:
    """Send head and body; False when the server stopped reading, which means that it may have answered early."""
    try:
        if isinstance(body, FileBody):
            yield from _send(core, line, head, deadline)
            for piece in body.pieces():
                yield from _send(core, line, piece, deadline)
        else:
            data = head + body if body else head
            yield Send(line, line.tls.encrypt(data) if line.tls else data, _left(core, deadline))
    except OSError:
        return False
    return True


def _send(core: Core, line: Line, data: bytes | memoryview, deadline: float) -> Steps[None]:
    yield Send(line, line.tls.encrypt(data) if line.tls else data, _left(core, deadline))


def _read_head(
    core: Core, line: Line, reader: AnswerReader, request: Request, deadline: float, *, was_sent: bool
) -> Steps[bytes]:
    body = b""
    try:
        while not reader.status:
            try:
                data = yield from _receive(line, _left(core, deadline))
            except KeyboardInterrupt:
                if request.on_interrupt is None or not request.on_interrupt():
                    raise
                deadline = min(deadline, core.clock() + INTERRUPT_GRACE_S)
                continue
            body = _feed(reader, data)
    except Lost as lost:
        raise Lost(lost.cause, was_sent=was_sent) from lost.cause
    except TimeoutError as error:
        raise Lost(error, was_sent=was_sent) from error
    return body


def _receive(line: Line, timeout_s: float) -> Steps[bytes]:
    """Return the next plain bytes, `b""` at the end of the stream."""
    tls = line.tls
    try:
        if tls is None:
            return (yield Receive(line, timeout_s))
        while (plain := tls.decrypt()) is None:
            data: bytes = yield Receive(line, timeout_s)
            tls.incoming(data)
        return plain
    except TimeoutError:
        raise
    except OSError as error:
        raise Lost(error, was_sent=True) from error


def _feed(reader: AnswerReader, data: bytes) -> bytes:
    if data:
        try:
            return reader.feed(data)
        except MalformedAnswerError as error:
            raise Lost(error, was_sent=True) from error
    try:
        reader.feed_end()
    except MalformedAnswerError:
        raise Lost(ConnectionResetError("the server closed the connection early"), was_sent=True) from None
    return b""


def _left(core: Core, deadline: float) -> float:
    """Return the seconds until the deadline, at most those of one request."""
    left = deadline - core.clock()
    if left <= 0:
        raise TimeoutError("timed out")
    return min(left, core.timeout_s)
