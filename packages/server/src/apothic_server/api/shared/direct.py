"""Requests that are answered without ASGI: what the connection and a direct answer ask of each other.

Running a request through uvicorn's cycle, a task, events and timeouts costs more than many requests themselves. Whoever
is asked to begin one may decline as long as it had no effect; then it takes the ordinary way, from its beginning.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from apothic_server.api.shared.operations import Receive, Scope, Send
from apothic_server.api.shared.response import Response

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Line(Protocol):
    """The connection, as the direct answer under way uses it. What it cannot send now, a task has to (`hand_over`).

    Attributes:
        memory: For whoever begins answers, from one request of the connection to the next.
    """

    memory: object

    def respond(self, response: Response, request_id: str) -> bool:
        """Send a whole answer in one write; False, and nothing is sent, when it cannot leave now."""
        ...

    def begin(self, response: Response, request_id: str) -> bool:
        """Send the head of an answer, with its body as the first piece; False as for `respond`."""
        ...

    def end(self, piece: bytes) -> bool:
        """Send the last piece of an answer that was begun; False as for `respond`."""
        ...

    def hand_over(self, app: App) -> None:
        """Let `app` give the answer, or the rest of one that was begun, in a task; the request's body was read."""
        ...


class _Deaf:
    """Stands for the event by which uvicorn wakes a cycle: a direct answer is called instead."""

    def set(self) -> None:
        pass


class Answering:
    """A request under way on a connection, in the place of uvicorn's cycle; the attributes are those that uvicorn uses.

    Attributes:
        response_complete: It was answered.
        is_begun: Its head was sent, and it goes on piece by piece.
        disconnected: The client closed the connection before that.
        keep_alive: The connection is of use after the answer.
    """

    __slots__ = ("disconnected", "is_begun", "keep_alive", "response_complete")
    message_event = _Deaf()

    def __init__(self) -> None:
        self.response_complete = False
        self.is_begun = False
        self.disconnected = False
        self.keep_alive = True

    def left(self) -> None:
        """The client is gone: nobody reads an answer."""
        raise NotImplementedError

    def hand_over(self) -> None:
        """The server stops: let a task give the answer, which is given time and then told to end."""
        raise NotImplementedError


class Direct(Protocol):
    """Answers some requests of a face directly."""

    def takes(self, method: bytes, url: bytes) -> bool:
        """Whether it may be asked to `begin` such a request, once that is whole."""
        ...

    def begin(self, line: Line, url: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> Answering | None:
        """Begin to answer; None, and nothing was done, when the ordinary way has to."""
        ...


def direct_of(app: Any) -> Direct | None:
    """Return what answers requests of an ASGI application directly, if it has it."""
    return getattr(app, "direct", None)
