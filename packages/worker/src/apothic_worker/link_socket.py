"""One WebSocket connection of the worker link, as an asyncio protocol around the sans-I/O half of `websockets`.

Messages go straight from the loop's read callback to `on_message`, without a queue or a task between.
"""

from __future__ import annotations

import asyncio
import ssl
import urllib.parse
from collections.abc import Callable
from typing import cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from apothic.wire.limits import LINK_FRAME_MAX
from apothic.wire.link_frames import FrameCutter, encode_message
from apothic.wire.version import VERSION

OPEN_TIMEOUT_S = 10.0


class LinkRefused(Exception):
    """The server does not accept this worker at all; `code` is that of the link's refusals."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class LinkUnavailable(Exception):
    """No link now; another try may help."""


class LinkSocket(asyncio.Protocol):
    """One connection; `closed` is done when it is gone, with the reason as text.

    Args:
        url: Address of the control plane, http or https.
        token: Worker token.
        on_message: Called with each whole message.
    """

    def __init__(self, url: str, token: str, on_message: Callable[[bytes], None]) -> None:
        self._url = url
        self._on_message = on_message
        self._machine = ClientProtocol(parse_uri(_link_address(url)), max_size=LINK_FRAME_MAX)
        self._token = token
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self._cutter = FrameCutter(size_max=LINK_FRAME_MAX, of_client=False)
        self._head_end = b""
        self._is_open = False
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[str] = loop.create_future()

    async def open(self) -> None:
        """Connect and shake hands.

        Raises:
            LinkRefused: The token is not accepted (401, 403).
            LinkUnavailable: Anything else.
        """
        parts = urllib.parse.urlsplit(self._url)
        context = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if context else 80)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: self, parts.hostname or "", port, ssl=context
                )
                await self._opened
        except (OSError, TimeoutError) as error:
            self.abort()
            raise LinkUnavailable(str(error) or "the server does not answer") from error
        except BaseException:
            self.abort()
            raise

    def send(self, message: bytes) -> None:
        """Send one binary message; silently dropped when the connection is gone or closing."""
        if self._transport is not None and self._is_open and not self.closed.done():
            self._transport.write(encode_message(message))

    async def close(self, code: int, reason: str = "") -> None:
        """Close with a code and wait up to a second for the other side."""
        if self._transport is None or self.closed.done():
            return
        self._machine.send_close(code, reason)
        self._flush()
        await asyncio.wait([self.closed], timeout=1.0)
        self.abort()

    def fail(self, code: int, reason: str) -> None:
        """Close with a code and wait for nobody: the other side broke the protocol or is gone."""
        if self._transport is not None and not self.closed.done():
            self._machine.send_close(code, reason)
            self._flush()
            self._transport.close()
        self._end(reason)

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()
        self._end("the connection was dropped")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the handshake request."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        request = self._machine.connect()
        request.headers["Authorization"] = f"Bearer {self._token}"
        request.headers["User-Agent"] = f"apothic-worker/{VERSION}"
        self._machine.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Act on whole messages; the machine gets everything else."""
        if not self._is_open:
            if self._machine.state is State.CONNECTING:
                data = self._answer_in(data)
            if not self._is_open:
                self._feed(data)
                return
        for frame, message in self._cutter.feed(data):
            if self.closed.done():
                return
            if message is None or self._parts or not self._is_open:
                self._feed(frame)
            else:
                self._on_message(message)

    def _answer_in(self, data: bytes) -> bytes:
        """Give the machine the answer to the handshake, and return what came behind its head."""
        seen = self._head_end + data
        end = seen.find(b"\r\n\r\n")
        size = len(data) if end < 0 else end + 4 - len(self._head_end)
        self._head_end = seen[-3:]
        self._feed(data[:size])
        return data[size:]

    def _feed(self, data: bytes) -> None:
        if not data:
            return
        self._machine.receive_data(data)
        self._flush()
        for event in self._machine.events_received():
            if isinstance(event, Response):
                self._answered()
            elif isinstance(event, Frame):
                self._frame(event)
        if self._machine.handshake_exc is not None:
            self._answered()
        if self._machine.close_expected() and self._transport is not None:
            self._transport.close()

    def eof_received(self) -> None:
        """Let the machine see the end; the transport then closes itself."""
        self._machine.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end."""
        close = self._machine.close_rcvd
        text = f"{close.code} {close.reason}".strip() if close else str(exc or "the connection was closed")
        self._end(text)

    def _answered(self) -> None:
        if self._opened.done():
            return
        problem = self._machine.handshake_exc
        if problem is None:
            self._opened.set_result(None)
        elif isinstance(problem, InvalidStatus) and problem.response.status_code in (401, 403):
            code = "unauthenticated" if problem.response.status_code == 401 else "forbidden"
            self._opened.set_exception(LinkRefused(code, "the server does not accept this worker's token"))
        else:
            self._opened.set_exception(LinkUnavailable(str(problem)))

    def _frame(self, frame: Frame) -> None:
        """Join fragments; a text message is a breach, control frames are answered by the machine itself."""
        if frame.opcode is Opcode.TEXT:
            self._machine.fail(1003, "only binary messages")
            self._flush()
        elif frame.opcode in (Opcode.BINARY, Opcode.CONT):
            self._parts.append(bytes(frame.data))
            if frame.fin:
                message, self._parts = b"".join(self._parts), []
                self._on_message(message)

    def _flush(self) -> None:
        """Send what the machine says; it is asked for its state after all that may change it."""
        self._is_open = self._machine.state is State.OPEN
        for data in self._machine.data_to_send():
            if self._transport is None:
                return
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()

    def _end(self, text: str) -> None:
        if not self._opened.done():
            self._opened.set_exception(LinkUnavailable(text))
            self._opened.exception()
        if not self.closed.done():
            self.closed.set_result(text)


def _link_address(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return urllib.parse.urlunsplit((scheme, parts.netloc, f"{parts.path.rstrip('/')}/v1/link", "", ""))
