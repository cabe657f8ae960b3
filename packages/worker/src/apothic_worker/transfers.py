"""Large values between this machine and the control plane, over HTTP; blocks, so it is called in threads.

A transfer goes on after a broken connection where it was, with pauses that double to `PAUSE_MAX_S`. It is tried until
it succeeds or the runner is gone, since what a server that is away costs is time and no result. An answer that stands
ends it at once: the value is too large, unknown or not this org's. One that says that there is no room is waited for,
`NO_ROOM_S` long: room may be made, but nobody knows when.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import select
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any, cast

from apothic.wire.large import BLOB_TYPE, UPLOAD_COMPLETE, UPLOAD_OFFSET, Reference
from apothic_worker import journal
from apothic_worker.archives import connect
from apothic_worker.attempt import Key
from apothic_worker.heads import Refused
from apothic_worker.relay import Relay, credential

PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 30.0
NO_ROOM_S = 60.0
CHUNK = 1024 * 1024
SEND_CHUNK = 16 * CHUNK
ANSWER_MAX = 64 * 1024
_NO_ROOM = 507
_PASSING = frozenset({408, 425, 429})

Wait = Callable[[threading.Event, float], bool]
"""Waits for an event, at most so many seconds; whether it came."""


class TransferRefused(Exception):
    """The control plane does not take or give this value; another try is in vain."""


class _NoRoom(Exception):
    """The control plane has no room now."""


class Transfers:
    """Moves values.

    Args:
        relay: Knows the control plane.
        wait: Waits for the end of a runner.
        clock: Seconds that only grow.
        jitter: Uniform between 0 and 1.
    """

    def __init__(
        self,
        relay: Relay,
        *,
        wait: Wait = threading.Event.wait,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._relay = relay
        self._wait = wait
        self._clock = clock
        self._jitter = jitter

    def fetch(self, descriptor: int, attempt: Key, reference: Reference, stop: threading.Event) -> None:
        """Write the bytes of a value into an empty file.

        Raises:
            TransferRefused: There is no such value, or `stop` came first.
        """
        digest = hashlib.sha256()
        self._until_done(lambda: self._receive(descriptor, digest, attempt, reference, stop), stop)
        if digest.hexdigest() != reference.sha256:
            raise TransferRefused("the control plane sent other bytes than it named")

    def send(self, descriptor: int, attempt: Key, reference: Reference, stop: threading.Event) -> None:
        """Upload the bytes of a file; the control plane compares the digest.

        Raises:
            TransferRefused: It does not take them, or `stop` came first.
        """
        if os.fstat(descriptor).st_size != reference.size_bytes:
            raise TransferRefused("the file does not have the size that was told")
        self._until_done(lambda: self._send_rest(descriptor, attempt, reference, stop), stop)

    def _until_done(self, step: Callable[[], bool], stop: threading.Event) -> None:
        tries, full_since = 0, None
        while True:
            began = self._clock()
            try:
                if step():
                    return
            except _NoRoom as full:
                full_since = began if full_since is None else full_since
                if self._clock() - full_since >= NO_ROOM_S:
                    raise TransferRefused(str(full)) from None
            except (OSError, http.client.HTTPException, Refused, ValueError) as error:
                full_since = None
                journal.warning("value.interrupted", reason=repr(error))
            tries = 1 if self._clock() - began > PAUSE_MAX_S else tries + 1  # it went well for a while
            longest_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2.0 ** min(tries - 1, 10))
            if self._wait(stop, longest_s * (0.5 + self._jitter() / 2)):
                raise TransferRefused("the runner is gone")

    def _receive(self, descriptor: int, digest: Any, attempt: Key, reference: Reference, stop: threading.Event) -> bool:
        at = os.fstat(descriptor).st_size
        headers = {"Range": f"bytes={at}-"} if at else {}
        connection, response = self._ask("GET", attempt, reference, headers)
        with contextlib.closing(connection):
            _check(response)
            if response.status != (206 if at else 200):
                return False
            while at < reference.size_bytes and not stop.is_set():
                piece = response.read(min(CHUNK, reference.size_bytes - at))
                if not piece:
                    break
                digest.update(piece)
                _write(descriptor, piece)
                at += len(piece)
        return at == reference.size_bytes

    def _send_rest(self, descriptor: int, attempt: Key, reference: Reference, stop: threading.Event) -> bool:
        connection, known = self._ask("HEAD", attempt, reference, {})
        connection.close()
        if known.status != 404:
            _check(known)
        if known.status == 200 and known.getheader(UPLOAD_COMPLETE) == "?1":
            return True
        at = int(known.getheader(UPLOAD_OFFSET) or "0") if known.status == 200 else 0
        at = at if at < reference.size_bytes else 0
        connection, path, sent = self._connection(attempt, reference)
        with contextlib.closing(connection):
            connection.putrequest("PUT", f"{path}?offset={at}")
            size = reference.size_bytes - at
            for name, value in {**sent, "Content-Type": BLOB_TYPE, "Content-Length": str(size)}.items():
                connection.putheader(name, value)
            connection.endheaders()
            _send_file(connection, descriptor, at, reference.size_bytes, stop)
            if stop.is_set():
                return False
            response = connection.getresponse()
            if response.status != 409:  # it has fewer bytes than it said
                _check(response)
            return response.status in (200, 201)

    def _ask(
        self, method: str, attempt: Key, reference: Reference, headers: dict[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection, path, sent = self._connection(attempt, reference)
        try:
            connection.request(method, path, headers={**sent, **headers})
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _connection(self, attempt: Key, reference: Reference) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        control_plane = self._relay.control_plane()
        parts = urllib.parse.urlsplit(control_plane.url)
        headers = {name.decode(): value.decode() for name, value in credential(control_plane, attempt)}
        return connect(parts), f"{parts.path.rstrip('/')}/v1/blobs/{reference.sha256}", headers


def _send_file(
    connection: http.client.HTTPConnection, descriptor: int, at: int, size: int, stop: threading.Event
) -> None:
    """Send a file from `at` on; ends early when an answer comes before the end, which then is one that refuses."""
    early = select.poll()
    early.register(connection.sock, select.POLLIN)
    with os.fdopen(os.dup(descriptor), "rb") as file:
        while at < size and not stop.is_set() and not early.poll(0):
            try:
                at += connection.sock.sendfile(file, at, min(SEND_CHUNK, size - at))
            except OSError:
                if early.poll(0):  # it stopped reading, perhaps after it said why
                    return
                raise


def _check(response: http.client.HTTPResponse) -> None:
    """Raise TransferRefused for an answer that stands, _NoRoom for one that waits for room."""
    if response.status == _NO_ROOM:
        raise _NoRoom(_told(response))
    if response.status in range(400, 500) and response.status not in _PASSING:
        raise TransferRefused(_told(response))


def _told(response: http.client.HTTPResponse) -> str:
    """Return what an answer says, with its code."""
    body: Any = None
    with contextlib.suppress(ValueError, RecursionError, OSError, http.client.HTTPException):
        body = json.loads(response.read(ANSWER_MAX))
    told = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    reason = f"{told.get('code')}: {told.get('detail')}" if "code" in told else f"status {response.status}"
    return f"the control plane refused the large value: {reason}"


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
