"""Large values to and from the server on this machine (`apothic.wire.handover`); blocks, so it is called in threads.

User code gets the server's own file only when that is read-only for its owner too, else a copy: to the kernel it is the
owner of that file, even in a sandbox, so it could open it anew for writing and change what other attempts and the
server read. A file system that can share blocks makes the copy without moving a byte.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from apothic.wire.handover import NotHandedOver, begin_put, open_file
from apothic.wire.large import Reference
from apothic_worker import journal
from apothic_worker.attempt import Key
from apothic_worker.heads import Refused
from apothic_worker.relay import Relay, credential

PIECE = 64 * 1024 * 1024
_CANNOT_SHARE = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


class Handover:
    """The short way.

    Args:
        socket: Where the server listens; None where there is no server on this machine.
        relay: Knows the credentials of attempts.
    """

    def __init__(self, socket: Path | None, relay: Relay) -> None:
        self._socket = socket
        self._relay = relay

    def open(self, attempt: Key, reference: Reference, make: Callable[[], int]) -> int | None:
        """Return the descriptor of a value's file for user code; None when it has to come another way.

        Args:
            make: Makes an empty file.
        """
        if self._socket is None:
            return None
        try:
            source, is_read_only = open_file(str(self._socket), reference, **self._credential(attempt))
        except (NotHandedOver, Refused) as error:
            journal.warning("value.not_handed_over", reason=str(error))
            return None
        if is_read_only:
            return source
        try:
            return _copied(source, make(), reference.size_bytes)
        except OSError as error:
            journal.warning("value.not_handed_over", reason=str(error))
            return None
        finally:
            os.close(source)

    def connect(self, attempt: Key, size_bytes: int) -> int | None:
        """Return a connection on which the server waits for a value; None when it has to go another way."""
        if self._socket is None:
            return None
        try:
            return begin_put(str(self._socket), size_bytes, **self._credential(attempt)).detach()
        except (NotHandedOver, Refused) as error:
            journal.warning("value.not_handed_over", reason=str(error))
            return None

    def _credential(self, attempt: Key) -> dict[str, str]:
        (_, authorization), (_, name) = credential(self._relay.control_plane(), attempt)
        return {"authorization": authorization.decode(), "attempt": name.decode()}


def _copied(source: int, target: int, size_bytes: int) -> int:
    """Return `target`, closed when it fails, with the bytes of `source`."""
    try:
        _copy(source, target, size_bytes)
        os.fchmod(target, 0o400)
    except BaseException:
        os.close(target)
        raise
    return target


def _copy(source: int, target: int, size_bytes: int) -> None:
    at = 0
    while at < size_bytes:
        count = min(PIECE, size_bytes - at)
        try:
            moved = os.copy_file_range(source, target, count, at, at)
        except OSError as error:
            if error.errno not in _CANNOT_SHARE:
                raise
            os.lseek(target, at, os.SEEK_SET)
            moved = os.sendfile(target, source, at, count)
        if not moved:
            raise OSError(errno.EIO, "the server's file ended early")
        at += moved
