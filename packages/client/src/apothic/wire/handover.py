"""Large values between processes of one machine: the way to the server that is shorter than the network's.

The server listens on a Unix socket in its data folder, which only its own user can reach. A connection is for one
value. Whoever connects sends one frame (`apothic.wire.frames`) with its credential, as over HTTP, and `attempt` for
that of an attempt; the server answers `refused`, or

    put, with size_bytes:   `go`; then the bytes come, and `stored` with their sha256 and size_bytes is the answer
    open, with sha256:      `file`, with the descriptor of the value's file, open for reading, and is_read_only

The server writes what comes into a file of its own and hashes the bytes as they pass, so whoever sent them can neither
name them wrongly nor change them afterwards. A descriptor that is open for reading can be opened again for writing by
whoever owns the file, unless it was opened on a read-only mount: `is_read_only`. One that was not is for programs of
the server's own user, which could write to the folder anyway, and never for user code: a worker copies the file for it.
For a result it gives user code a connection that was answered with `go`, so that sees no credential and no other value.

Nobody depends on this way: whatever goes wrong on it, the value takes the one over HTTP, which says why if that fails.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Any

from apothic.wire.frames import FrameReader, encode_frame
from apothic.wire.large import Reference

SOCKET = "values.sock"
"""Name of the socket in the data folder."""

HEAD_MAX = 4096
"""Largest frame on it."""

SILENCE_S_MAX = 30.0
"""A side that sends or takes nothing for so long has lost the connection."""

SEND_BUFFER = 1024 * 1024


class NotHandedOver(Exception):
    """The value has to take the other way."""


def begin_put(path: str, size_bytes: int, *, authorization: str | None, attempt: str = "") -> socket.socket:
    """Return a connection on which the server of the socket at `path` waits for a value's bytes; blocks.

    Raises:
        NotHandedOver: It does not.
    """
    sock, head, _ = _asked(path, "put", authorization, attempt, size_bytes=size_bytes)
    try:
        _check(head, "go")
    except BaseException:
        sock.close()
        raise
    return sock


def send(sock: socket.socket, size_bytes: int, pieces: Iterable[memoryview]) -> Reference:
    """Send a value on a connection of `begin_put`, and return what names it; blocks, and closes the connection.

    Raises:
        NotHandedOver: It was not stored.
    """
    try:
        with sock:
            sock.settimeout(SILENCE_S_MAX)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            for piece in pieces:
                sock.sendall(piece)
            stored = _answer(sock)[0]
            _check(stored, "stored")
            reference = Reference.parse(f"{stored.get('sha256')} {stored.get('size_bytes')}".encode())
    except (OSError, ValueError) as error:
        raise NotHandedOver(str(error)) from error
    if reference.size_bytes != size_bytes:
        raise NotHandedOver("the server stored another size")
    return reference


def open_file(path: str, reference: Reference, *, authorization: str | None, attempt: str = "") -> tuple[int, bool]:
    """Return the descriptor of the server's own file of a value, and whether it is read-only for its owner too; blocks.

    Raises:
        NotHandedOver: The server did not give it.
    """
    sock, head, descriptors = _asked(path, "open", authorization, attempt, sha256=reference.sha256)
    sock.close()
    try:
        _check(head, "file")
        if len(descriptors) != 1 or os.fstat(descriptors[0]).st_size != reference.size_bytes:
            raise NotHandedOver("the server gave another file")
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return descriptors[0], head.get("is_read_only") is True


def _asked(
    path: str, kind: str, authorization: str | None, attempt: str, **asked: Any
) -> tuple[socket.socket, dict[str, Any], list[int]]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(SILENCE_S_MAX)
        _connect(sock, path)
        sock.sendall(encode_frame({"kind": kind, "authorization": authorization, "attempt": attempt, **asked}))
        return sock, *_answer(sock)
    except (OSError, ValueError) as error:
        sock.close()
        raise NotHandedOver(str(error)) from error
    except BaseException:
        sock.close()
        raise


def _connect(sock: socket.socket, path: str) -> None:
    """Connect by the folder's descriptor, so that a long path does not exceed what an address can hold."""
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # noqa: PTH120 - a text
    try:
        sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")  # noqa: PTH119 - a text
    finally:
        os.close(folder)


def _answer(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return the one frame that the server sends next, and the descriptors that come with it."""
    frames, descriptors = FrameReader(size_max=HEAD_MAX), list[int]()
    while True:
        data, found, _, _ = socket.recv_fds(sock, HEAD_MAX, 1, socket.MSG_CMSG_CLOEXEC)
        descriptors += found
        heads = frames.feed(data)
        if heads or not data:
            return (heads[0][0] if heads else {}), descriptors


def _check(head: dict[str, Any], kind: str) -> None:
    if head.get("kind") != kind:
        raise NotHandedOver(f"the server answered {head.get('kind')!r}")
