"""Large values inside a runner: files of the worker, got and given as descriptors over its socket beside the API's.

User code may do so too; it gets no more than the same bytes by HTTP.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apothic._runtime.context import call_name
from apothic.wire.attempts import SOCKET_VARIABLE, VALUES_SOCKET
from apothic.wire.frames import decode_frame, encode_frame
from apothic.wire.large import Reference
from apothic.wire.values import Value

if TYPE_CHECKING:
    from collections.abc import Generator

    from apothic._large import LargeBody

MESSAGE_MAX = 4096
_FOLDER = Path(os.environ.get(SOCKET_VARIABLE, "")).parent


class TransferFailed(Exception):
    """The worker could not fetch or upload a large value; the message says why."""


def open_value(reference: Reference) -> int:
    """Return the descriptor of a read-only file with the bytes of a large value; blocks until they are here.

    Raises:
        TransferFailed: They cannot be fetched.
    """
    with _worker() as sock:
        _, descriptor = _ask(sock, {"kind": "open", "sha256": reference.sha256, "size_bytes": reference.size_bytes})
        return _needed(descriptor)


def keep(body: LargeBody) -> Value:
    """Write a large value into a file of the worker, let it be uploaded, and return what names it; blocks until then.

    Raises:
        TransferFailed: It cannot be uploaded.
    """
    with _worker() as sock:
        descriptor = _needed(_ask(sock, {"kind": "make"})[1])
        try:
            for piece in body.pieces():
                view = piece
                while view:
                    view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        reference = body.reference
        _ask(sock, {"kind": "upload", "sha256": reference.sha256, "size_bytes": reference.size_bytes})
    return body.value


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


def _ask(sock: socket.socket, head: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
    sock.send(encode_frame({**head, "call": call_name()}))
    data, descriptors, _, _ = socket.recv_fds(sock, MESSAGE_MAX, 1, socket.MSG_CMSG_CLOEXEC)
    answer = decode_frame(data)[0] if data else {"kind": "refused", "reason": "the worker ended the connection"}
    if answer.get("kind") != "done":
        for descriptor in descriptors:
            os.close(descriptor)
        raise TransferFailed(str(answer.get("reason")))
    return answer, descriptors[0] if descriptors else None


def _needed(descriptor: int | None) -> int:
    if descriptor is None:
        raise TransferFailed("the worker sent no file")
    return descriptor
