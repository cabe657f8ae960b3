"""The WebSocket under a link: uvicorn's protocol, but whole messages go straight to who acts on them.

Once a session has taken the connection over, a message passes no queue and no task on its way in, and leaves as one
frame without the protocol machine. Control frames, fragments and what is malformed are the machine's as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from apothic.wire.limits import LINK_FRAME_MAX
from apothic.wire.link_frames import FrameCutter, message_head

SOCKET = "apothic.link_socket"
"""Where the scope of a connection has its `LinkSocket`."""


class LinkSocket(WebSocketsSansIOProtocol):
    """See the module's text; before `take_over` it is uvicorn's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._on_message: Callable[[bytes], None] | None = None
        self._cutter = FrameCutter(size_max=LINK_FRAME_MAX, of_client=True)

    async def run_asgi(self) -> None:
        """Run the application, which finds this object in its scope."""
        self.scope.setdefault("state", {})[SOCKET] = self
        await super().run_asgi()

    def take_over(self, on_message: Callable[[bytes], None]) -> None:
        """From now on give each whole message to `on_message`; `receive` then waits for the end of the connection."""
        self._on_message = on_message

    def write(self, message: bytes) -> None:
        """Send one binary message without waiting; dropped when the connection is gone or closing."""
        if self._is_open:
            self.transport.write(message_head(len(message)) + message)

    def pause(self) -> None:
        """Read nothing until `resume`; messages that were read already still come."""
        if not self.disconnected:
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self.disconnected:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Act on whole messages; the machine gets everything else."""
        if self._on_message is None:
            super().data_received(data)
            return
        for frame, message in self._cutter.feed(data):
            if message is None or self.frames or not self._is_open:
                super().data_received(frame)
            else:
                self._on_message(message)

    def send_receive_event_to_app(self) -> None:
        """Hand a message over that came in fragments, or as text."""
        if self._on_message is None:
            super().send_receive_event_to_app()
            return
        message, self.frames = b"".join(self.frames), []
        if not self.close_sent:
            self._on_message(message)

    @property
    def _is_open(self) -> bool:
        return not self.close_sent and not self.disconnected and self.conn.state is State.OPEN
