"""Large values on their way between this process and the control plane, without I/O: uploaded before a call, fetched
after its outcome. Both go on where they were when a connection breaks. A server on this machine, and the worker around
user code, hand them over without one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from apothic._connection import Answer
from apothic._core import Core, Lost
from apothic._exchange import RESUMES_MAX, failure, open_stream, perform
from apothic._http import FileBody, Request
from apothic._steps import Pause, Steps, work
from apothic.errors import ConflictError, ConnectionLostError, ProtocolError, UnavailableError
from apothic.wire.large import BLOB_TYPE, UPLOAD_COMPLETE, UPLOAD_OFFSET, Reference
from apothic.wire.limits import MIB
from apothic.wire.values import Value

if TYPE_CHECKING:
    from apothic._large import LargeBody

TRANSFER_S_MAX = 3600.0
"""Longest transfer of the rest of a value."""

HANDOVER_PIECE = 64 * MIB
"""Bytes sent at once to a server on this machine."""

SILENCE_S_MAX = 60.0
"""Longest silence inside a value that is fetched."""


def uploaded(core: Core, value: Value | LargeBody) -> Steps[Value]:
    """Return what a call carries; a large value is uploaded first, unless the org has it.

    Raises:
        ApothicError: It cannot be uploaded.
    """
    if isinstance(value, Value):
        return value
    handed = yield from _handed_over(core, value)
    if handed is not None:
        return handed
    tries = 0
    while True:
        try:
            yield from _upload(core, value)
        except (ConnectionLostError, UnavailableError, ConflictError) as error:
            tries += 1
            if tries >= RESUMES_MAX or (isinstance(error, ConflictError) and error.code != "upload_offset"):
                raise
            yield Pause(core.pause_s(tries))
        else:
            return value.value(value.reference)


def downloaded(core: Core, reference: Reference) -> Steps[int]:
    """Return the descriptor of a file with the bytes of a large value; whoever gets it closes it.

    Inside a function it is the file that the worker keeps of it, else a temporary one without a name.

    Raises:
        ApothicError: It cannot be fetched.
    """
    if core.endpoint.socket is not None:
        from apothic._runtime.large import TransferFailed, open_value

        try:
            return (yield from work(lambda: open_value(reference)))
        except TransferFailed as error:
            raise UnavailableError(f"The large result could not be fetched: {error}.", code="transfer_failed") from None
    path = core.endpoint.values
    if path is not None:
        from apothic.wire.handover import NotHandedOver, open_file

        try:
            return (yield from work(lambda: open_file(path, reference, authorization=core.endpoint.authorization)))[0]
        except NotHandedOver:
            pass
    file = yield from work(lambda: _Fetched(reference))
    tries = 0
    try:
        while not file.is_whole:
            before = file.size
            try:
                yield from _download(core, reference, file)
            except (Lost, TimeoutError, ConnectionLostError, UnavailableError) as error:
                tries = 1 if file.size > before else tries + 1
                if tries >= RESUMES_MAX:
                    raise ConnectionLostError(f"The large result could not be fetched: {error}.") from error
                yield Pause(core.pause_s(tries))
    except BaseException:
        file.close()
        raise
    return file.descriptor


def _handed_over(core: Core, body: LargeBody) -> Steps[Value | None]:
    """Return what a call carries when the value got to the server by the short way; None when it did not."""
    path = core.endpoint.values
    if core.endpoint.socket is not None:
        from apothic._runtime.large import TransferFailed, keep

        try:
            return (yield from work(lambda: keep(body)))
        except TransferFailed as error:
            detail = f"The large arguments could not be uploaded: {error}."
            raise UnavailableError(detail, code="transfer_failed") from None
    if path is None:
        return None
    from apothic.wire.handover import NotHandedOver, begin_put, send

    try:
        sock = yield from work(lambda: begin_put(path, body.size_bytes, authorization=core.endpoint.authorization))
        reference = yield from work(lambda: send(sock, body.size_bytes, body.pieces(piece=HANDOVER_PIECE)))
    except NotHandedOver:
        return None
    return body.value(reference)


def _upload(core: Core, body: LargeBody) -> Steps[None]:
    reference = yield from work(lambda: body.reference)
    path, size = _path(core, reference), body.size_bytes
    known = yield from perform(core, Request("HEAD", path, is_repeatable=True))
    if known.status not in {200, 404}:
        raise failure(core, known)
    if known.status == 200 and known.headers.get(UPLOAD_COMPLETE.lower()) == "?1":
        return
    offset = _offset(known.headers.get(UPLOAD_OFFSET.lower(), "0")) if known.status == 200 else 0
    if offset >= size:
        offset = 0
    request = Request(
        "PUT",
        f"{path}?offset={offset}",
        (("Content-Type", BLOB_TYPE), ("Accept", "application/json")),
        FileBody(size - offset, lambda: body.pieces(offset)),
        is_repeatable=True,
    )
    response = yield from perform(core, request, timeout_s=max(core.timeout_s, TRANSFER_S_MAX), tries_max=1)
    if response.status not in {200, 201}:
        raise failure(core, response)


def _download(core: Core, reference: Reference, file: _Fetched) -> Steps[None]:
    headers = (("Accept", BLOB_TYPE),) + ((("Range", f"bytes={file.size}-"),) if file.size else ())
    request = Request("GET", _path(core, reference), headers, is_repeatable=True)
    answer = yield from open_stream(core, request, core.clock() + core.timeout_s, content_type=BLOB_TYPE)
    try:
        if answer.status != (206 if file.size else 200):
            raise ProtocolError("The server sent another part of a large value than was asked for.")
        yield from _copy(answer, file)
    except BaseException:
        answer.close_unless_finished()
        raise
    answer.finish()


def _copy(answer: Answer, file: _Fetched) -> Steps[None]:
    is_over = False
    while not is_over:
        pieces: list[bytes] = []
        size = 0
        try:
            while size < MIB and not is_over:
                piece = yield from answer.read(SILENCE_S_MAX)
                pieces.append(piece)
                size += len(piece)
                is_over = not piece
        finally:
            file.write(pieces)


class _Fetched:
    """A temporary file that a value is fetched into, and what is known of its content."""

    def __init__(self, reference: Reference) -> None:
        import hashlib
        import tempfile

        self.size = 0
        self._reference = reference
        self._digest: Any = hashlib.sha256()
        self.descriptor, path = tempfile.mkstemp(prefix="apothic-value-")
        os.unlink(path)  # noqa: PTH108 - a text

    @property
    def is_whole(self) -> bool:
        """Whether all bytes are here.

        Raises:
            ProtocolError: They are not the ones that were named.
        """
        if self.size < self._reference.size_bytes:
            return False
        if self.size > self._reference.size_bytes or self._digest.hexdigest() != self._reference.sha256:
            raise ProtocolError("The server sent other bytes of a large value than were named.")
        return True

    def write(self, pieces: list[bytes]) -> None:
        """Append bytes."""
        for piece in pieces:
            self._digest.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(self.descriptor, view) :]
            self.size += len(piece)

    def close(self) -> None:
        """Give the file up."""
        os.close(self.descriptor)


def _path(core: Core, reference: Reference) -> str:
    return f"{core.endpoint.prefix}/v1/blobs/{reference.sha256}"


def _offset(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise ProtocolError("The server's answer does not fit: Upload-Offset.")
    return int(text)
