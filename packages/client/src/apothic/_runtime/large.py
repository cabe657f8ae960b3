"""Large values inside a runner: files of the worker, got and given as descriptors over its socket beside the API's.

User code may do so too; it gets no more than the same bytes by HTTP.

What is done with the worker is a generator that yields what it waits for: one that blocks and one for an event loop
that other calls run on both go through the same steps.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from apothic._runtime.context import call_name
from apothic.wire.attempts import SOCKET_VARIABLE, VALUES_SOCKET
from apothic.wire.frames import decode_frame, encode_frame
from apothic.wire.handover import NotHandedOver, send
from apothic.wire.large import Reference
from apothic.wire.values import Value

if TYPE_CHECKING:
    from apothic._large import LargeBody

T = TypeVar("T")
Steps = Generator["socket.socket | Callable[[], None]", None, T]
"""Yields a socket to wait until it can be read, or a function that blocks on files."""

MESSAGE_MAX = 4096
SEND_PIECE = 64 * 1024 * 1024
_FOLDER = Path(os.environ.get(SOCKET_VARIABLE, "")).parent


class TransferFailed(Exception):
    """The worker could not fetch or upload a large value; the message says why."""


def open_value(reference: Reference) -> int:
    """Return the descriptor of a read-only file with the bytes of a large value; blocks until they are here.

    Raises:
        TransferFailed: They cannot be fetched.
    """
    return _blocking(_opening(reference))


async def open_value_async(reference: Reference) -> int:
    """As `open_value`; the event loop goes on meanwhile."""
    return await _awaited(_opening(reference))


def keep(body: LargeBody) -> Value:
    """Give a large value away and return what names it; blocks until it is stored.

    It is sent to the server itself where the worker can give a connection, else written into a file that it uploads.

    Raises:
        TransferFailed: It cannot be uploaded.
    """
    return _blocking(_keeping(body))


async def keep_async(body: LargeBody) -> Value:
    """As `keep`; the event loop goes on meanwhile."""
    return await _awaited(_keeping(body))


def _opening(reference: Reference) -> Steps[int]:
    with _worker() as sock:
        asked = {"kind": "open", "sha256": reference.sha256, "size_bytes": reference.size_bytes}
        return _needed((yield from _ask(sock, asked)))


def _keeping(body: LargeBody) -> Steps[Value]:
    with _worker() as sock:
        stream = yield from _ask(sock, {"kind": "send", "size_bytes": body.size_bytes})
        if stream is not None:
            sent: list[Reference] = []
            yield lambda: _send(stream, body, sent)
            if sent:
                return body.value(sent[0])
        descriptor = _needed((yield from _ask(sock, {"kind": "make"})))
        yield lambda: _fill(descriptor, body)
        reference = body.reference
        yield from _ask(sock, {"kind": "upload", "sha256": reference.sha256, "size_bytes": reference.size_bytes})
    return body.value(reference)


def _blocking(steps: Steps[T]) -> T:
    try:
        while True:
            step = next(steps)
            if not isinstance(step, socket.socket):
                step()
    except StopIteration as end:
        return end.value


async def _awaited(steps: Steps[T]) -> T:
    import asyncio

    loop = asyncio.get_running_loop()
    try:
        while True:
            step = next(steps)
            if isinstance(step, socket.socket):
                await _readable(loop, step)
            else:
                await loop.run_in_executor(None, step)
    except StopIteration as end:
        return end.value
    finally:
        steps.close()


async def _readable(loop: Any, sock: socket.socket) -> None:
    readable = loop.create_future()
    loop.add_reader(sock, lambda: readable.done() or readable.set_result(None))
    try:
        await readable
    finally:
        loop.remove_reader(sock)


def _send(stream: int, body: LargeBody, sent: list[Reference]) -> None:
    """Send the value to the server itself; what names it is added to `sent`, unless it has to take the other way."""
    with suppress(NotHandedOver):
        sent.append(send(socket.socket(fileno=stream), body.size_bytes, body.pieces(piece=SEND_PIECE)))


def _fill(descriptor: int, body: LargeBody) -> None:
    """Write the value into a file, which is closed in any case."""
    try:
        for piece in body.pieces():
            view = piece
            while view:
                view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise TransferFailed(f"the value cannot be written to the disk of this machine: {error}") from error
    finally:
        os.close(descriptor)


@contextmanager
def _worker() -> Generator[socket.socket]:
    """Connect by the folder's descriptor, so that a long path does not exceed what an address can hold."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        try:
            folder = os.open(_FOLDER, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                sock.connect(f"/proc/self/fd/{folder}/{VALUES_SOCKET}")
            finally:
                os.close(folder)
            yield sock
        except OSError as error:
            raise TransferFailed(f"the worker cannot be reached: {error}") from error


def _ask(sock: socket.socket, head: dict[str, Any]) -> Steps[int | None]:
    """Return the descriptor that comes with the answer, if one does."""
    sock.send(encode_frame({**head, "call": call_name()}))
    yield sock
    data, descriptors, _, _ = socket.recv_fds(sock, MESSAGE_MAX, 1, socket.MSG_CMSG_CLOEXEC)
    answer = decode_frame(data)[0] if data else {"kind": "refused", "reason": "the worker ended the connection"}
    if answer.get("kind") != "done":
        for descriptor in descriptors:
            os.close(descriptor)
        raise TransferFailed(str(answer.get("reason")))
    return descriptors[0] if descriptors else None


def _needed(descriptor: int | None) -> int:
    if descriptor is None:
        raise TransferFailed("the worker sent no file")
    return descriptor
