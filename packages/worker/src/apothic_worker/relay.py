"""Carries requests of user code to the control plane, with the token of the attempt that makes them (G19.6).

One connection of user code has at most one connection to the control plane, opened with its first request; requests on
it follow each other. Bodies are streamed both ways, and whoever reads slowly slows the other side down. User code never
sees the token, and what it sends in its place is thrown away.

Before the answer begins, a failure is an answer of ours: 503 when the control plane could not be reached, so nothing
was done, and 502 when the connection broke after the request. Afterwards the connection is cut, as it was on that side.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import ssl
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass

from apothic.wire.attempts import ATTEMPT_HEADER
from apothic.wire.ids import new_key
from apothic.wire.limits import HEADER_BLOCK_MAX
from apothic.wire.tokens import AttemptName, attempt_token
from apothic_worker.attempt import Caller, Key
from apothic_worker.heads import AnswerHead, Headers, Refused, RequestHead, parse_answer, parse_request
from apothic_worker.heads import write_answer as answer_bytes
from apothic_worker.heads import write_request as request_bytes

PIECE = 64 * 1024
DIAL_S = 10.0
HEAD_S = 30.0
"""A connection that brings no whole request for so long is closed."""

REUSE_S = 4.0
"""A connection to the control plane that was idle for longer is not used again: servers close theirs after 5 s."""

EARLY_ANSWER_S = 2.0
"""Time to read an answer after the control plane stopped reading the body."""

HALF_CLOSED_LOOK_S = 0.25
"""How often is looked whether user code that writes no more still listens."""

CHUNK_LINE_MAX = 1024
RETRY_AFTER_S = 1


@dataclass(frozen=True)
class ControlPlane:
    """Where requests go and as whom: the incarnation of this worker and the key of its attempts' tokens."""

    url: str
    incarnation: str
    attempt_key: str


class _Lost(Exception):
    """The control plane ended the connection early or did not speak HTTP."""


class Relay:
    """What the connections of one worker share.

    Args:
        where: Returns the control plane now; None before the first link.
    """

    def __init__(self, where: Callable[[], ControlPlane | None]) -> None:
        self._where = where
        self._trust: ssl.SSLContext | None = None

    def control_plane(self) -> ControlPlane:
        """Return where requests go now.

        Raises:
            Refused: This worker has not been welcomed yet.
        """
        found = self._where()
        if found is None or not found.attempt_key:
            raise _unreachable("this machine is not linked to it")
        return found

    async def dial(self, url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the control plane with the worker's own trust settings.

        Raises:
            Refused: It cannot be reached.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme == "https" and self._trust is None:
            self._trust = ssl.create_default_context()
        trust = self._trust if parts.scheme == "https" else None
        try:
            async with asyncio.timeout(DIAL_S):
                return await asyncio.open_connection(
                    parts.hostname, parts.port or (443 if trust else 80), ssl=trust, limit=HEADER_BLOCK_MAX
                )
        except (OSError, TimeoutError) as error:
            raise _unreachable(str(error) or "it does not answer") from error


class Connection:
    """One connection of user code, from its first byte to its last."""

    def __init__(
        self, relay: Relay, caller: Caller, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._relay = relay
        self._caller = caller
        self._reader = reader
        self._writer = writer
        self._early = b""
        self._upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._upstream_url = ""
        self._used_at = 0.0
        self._body_left = 0

    async def serve(self) -> None:
        """Relay requests until user code or the control plane ends the connection."""
        try:
            while await self._serve_one():
                pass
        except (OSError, _Lost, asyncio.IncompleteReadError):
            self._writer.transport.abort()
        finally:
            self._drop_upstream()

    async def refuse(self, refused: Refused) -> None:
        """Answer and close, whatever was asked."""
        with contextlib.suppress(OSError):
            await self._tell(refused)

    async def _serve_one(self) -> bool:
        try:
            block = await self._read_head()
            if not block:
                return False
            head = parse_request(block)
            return await self._exchange(head)
        except Refused as refused:
            await self._tell(refused)
            return False

    async def _read_head(self) -> bytes:
        early, self._early = self._early, b""
        try:
            async with asyncio.timeout(HEAD_S):
                return early + await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial or early:
                raise
            return b""
        except TimeoutError:
            return b""
        except asyncio.LimitOverrunError as error:
            detail = f"The request's headers exceed {HEADER_BLOCK_MAX} bytes."
            raise Refused(413, "too_large", detail) from error

    async def _exchange(self, head: RequestHead) -> bool:
        """Relay one request and its answer; true when another request may follow."""
        control_plane = self._relay.control_plane()
        added = self._credential(control_plane, head.call)
        reader, writer = await self._connected(control_plane.url)
        self._body_left = head.length
        parts = urllib.parse.urlsplit(control_plane.url)
        prefix, host = parts.path.rstrip("/").encode(), parts.netloc.encode()
        request = asyncio.ensure_future(self._send(writer, request_bytes(head, prefix, host, added)))
        answer = asyncio.ensure_future(self._answer(reader, head))
        try:
            await asyncio.wait([request, answer], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() and not request.result():
                return False
            return await answer
        finally:
            for task in (request, answer):
                task.cancel()
            await asyncio.gather(request, answer, return_exceptions=True)

    def _credential(self, control_plane: ControlPlane, call: str) -> Headers:
        attempt = self._caller.attempt_of(call)
        if attempt is None:
            raise Refused(409, "call_unknown", UNKNOWN_CALL)
        return credential(control_plane, attempt, self._caller.item_of(call))

    async def _connected(self, url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        now = asyncio.get_running_loop().time()
        if self._upstream is not None:
            reader, writer = self._upstream
            is_fresh = now - self._used_at <= REUSE_S and url == self._upstream_url
            if is_fresh and not reader.at_eof() and not writer.is_closing():
                return self._upstream
            self._drop_upstream()
        self._upstream, self._upstream_url = await self._relay.dial(url), url
        return self._upstream

    async def _send(self, writer: asyncio.StreamWriter, head: bytes) -> bool:
        """Send a request, then watch user code; false when user code has left, true when there is no more to watch.

        Raises:
            Refused: The control plane stopped reading and did not say why in time.
        """
        is_read = await _sent(writer, head)
        while self._body_left > 0 and is_read:
            piece = await self._reader.read(min(self._body_left, PIECE))
            if not piece:
                return False
            self._body_left -= len(piece)
            is_read = await _sent(writer, piece)
        if not is_read:
            await asyncio.sleep(EARLY_ANSWER_S)
            raise Refused(502, "answer_lost", ANSWER_LOST)
        self._early = await self._reader.read(1)
        while not self._early and not _has_left(self._writer):  # noqa: ASYNC110 (nothing wakes us when it leaves)
            await asyncio.sleep(HALF_CLOSED_LOOK_S)
        return bool(self._early)

    async def _answer(self, reader: asyncio.StreamReader, request: RequestHead) -> bool:
        """Relay the answer; true when the connection can carry another request.

        None follows an answer that came before the body was through: the control plane would read the next head, with
        the token in it, as the rest of that body, and what user code puts behind it as a request of its own.
        """
        try:
            head = await _read_answer_head(reader, request.method)
        except (OSError, _Lost, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise Refused(502, "answer_lost", ANSWER_LOST) from error
        keeps_alive = request.keeps_alive and head.keeps_alive and not self._body_left
        self._writer.write(answer_bytes(head, request.method, keeps_alive=keeps_alive))
        await self._copy_body(reader, head)
        await self._writer.drain()
        self._used_at = asyncio.get_running_loop().time()
        return keeps_alive

    async def _copy_body(self, reader: asyncio.StreamReader, head: AnswerHead) -> None:
        if head.is_chunked:
            while size := await _chunk_size(reader):
                self._writer.write(b"%x\r\n" % size)
                await self._copy(reader, size)
                if await reader.readexactly(2) != b"\r\n":
                    raise _Lost
                self._writer.write(b"\r\n")
            while await _line(reader):
                pass  # trailers say nothing that user code needs
            self._writer.write(b"0\r\n\r\n")
        elif head.length is not None:
            await self._copy(reader, head.length)
        else:
            while piece := await reader.read(PIECE):
                self._writer.write(piece)
                await self._writer.drain()

    async def _copy(self, reader: asyncio.StreamReader, size: int) -> None:
        while size > 0:
            piece = await reader.read(min(size, PIECE))
            if not piece:
                raise _Lost
            size -= len(piece)
            self._writer.write(piece)
            await self._writer.drain()

    async def _tell(self, refused: Refused) -> None:
        """Answer an error of ours in the form of the API's."""
        body = {
            "detail": refused.detail,
            "code": refused.code,
            "request_id": new_key(),
            "retryable": refused.is_retryable,
        }
        data = json.dumps(body).encode()
        headers: Headers = [(b"content-type", b"application/json")]
        if refused.is_retryable:
            headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
        head = AnswerHead(refused.status, b"", headers, len(data), is_chunked=False, keeps_alive=False)
        self._writer.write(answer_bytes(head, b"", keeps_alive=False) + data)
        await self._writer.drain()

    def _drop_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream[1].transport.abort()
            self._upstream = None


def credential(control_plane: ControlPlane, attempt: Key, item: int | None = None) -> Headers:
    """Return the headers that make a request one of an attempt, and of an item of a map that it executes."""
    job, fence = attempt
    name = AttemptName(control_plane.incarnation, job, fence, item)
    token = attempt_token(control_plane.attempt_key, job, fence)
    return [
        (b"authorization", f"Bearer {token}".encode()),
        (ATTEMPT_HEADER.lower().encode(), str(name).encode()),
    ]


UNKNOWN_CALL = (
    "No call that runs makes this request: a thread makes it that an ended call left behind, or the runner executes "
    "several calls and the context of this one was lost. Start threads with contextvars.copy_context().run, or let the "
    "call itself make the request."
)
ANSWER_LOST = "The connection to the control plane ended before its answer; the request may have taken effect."


def _unreachable(why: str) -> Refused:
    return Refused(503, "unavailable", f"The control plane cannot be reached now: {why}.", is_retryable=True)


def _has_left(writer: asyncio.StreamWriter) -> bool:
    """Whether user code closed its end in both directions."""
    descriptor = writer.get_extra_info("socket").fileno()
    if descriptor < 0:
        return True
    look = select.poll()
    look.register(descriptor, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in look.poll(0))


async def _sent(writer: asyncio.StreamWriter, data: bytes) -> bool:
    """Send to the control plane; false when it reads no more."""
    try:
        writer.write(data)
        await writer.drain()
    except OSError:
        return False
    return True


async def _read_answer_head(reader: asyncio.StreamReader, method: bytes) -> AnswerHead:
    while True:
        head = parse_answer(await reader.readuntil(b"\r\n\r\n"), method)
        if head.status >= 200:
            return head


async def _chunk_size(reader: asyncio.StreamReader) -> int:
    text = (await _line(reader)).partition(b";")[0].strip()
    try:
        return int(text, 16)
    except ValueError:
        raise _Lost from None


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        line = await reader.readuntil(b"\r\n")
    except asyncio.LimitOverrunError:
        raise _Lost from None
    return line[:-2]
