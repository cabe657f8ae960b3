"""Tells the other processes of a cloud which keys changed, and hears what they tell (LISTEN and NOTIFY).

A notification is a hint and nothing else: whoever waits for a change reads the store again on a timer anyway (G5.6).
It is sent after the commit that it tells of, on a connection of its own, so no commit waits for it and none is made
durable for it. What is told while a notification travels goes with the next one; what does not fit is told as
`EVERYTHING`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from apothic_server.store.connection import Connection
from apothic_server.store.errors import store_errors

CHANNEL = "apothic"
EVERYTHING = "*"
PAYLOAD_MAX = 7_900
"""Characters of one notification; the store's own bound is 8,000 bytes."""

PAYLOADS_MAX = 16
"""Notifications of one statement."""

KEYS_MAX = 4_000
"""More keys than this are told as `EVERYTHING`."""

_SEND = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload"
_NO_FSYNC = "SET synchronous_commit = off"
"""This connection writes no row; what it commits need not survive."""

Heard = Callable[[list[str] | None], None]


class Channel:
    """This process's end of the channel. All methods belong to one event loop.

    Args:
        connect: Opens the connection, as the owner of the tables.
        heard: Called with the keys that another process told; None means that anything may have changed, also after
            a connection that was lost.
        wake: Called when `step` has something to do.

    Attributes:
        sent: Notifications sent so far.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], heard: Heard, wake: Callable[[], None]) -> None:
        self._connect = connect
        self._heard = heard
        self._wake = wake
        self._connection: Connection | None = None
        self._keys: dict[str, None] = {}
        self.sent = 0

    def tell(self, key: str) -> None:
        """Have the others told that something of `key` is committed; never blocks, never raises."""
        if len(self._keys) <= KEYS_MAX:
            self._keys[key] = None
        self._wake()

    async def step(self) -> None:
        """Connect when there is no connection, then send what waits.

        Raises:
            Unavailable: The store is away; what waits stays.
        """
        connection = self._connection
        if connection is None or connection.is_closed():
            connection = await self._open()
        while self._keys:
            await self._send(connection)

    async def close(self) -> None:
        """Disconnect; what was not sent is lost, as any hint may be. Twice is fine."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            with store_errors():
                await connection.close(timeout=5.0)

    async def _open(self) -> Connection:
        connection = await self._connect()
        try:
            with store_errors():
                await connection.execute(_NO_FSYNC)
                await connection.add_listener(CHANNEL, self._listen)
        except BaseException:
            connection.terminate()
            raise
        connection.add_termination_listener(lambda _: self._wake())
        self._connection = connection
        self._heard(None)
        return connection

    async def _send(self, connection: Connection) -> None:
        keys, self._keys = self._keys, {}
        payloads = payloads_of(keys)
        try:
            with store_errors():
                await connection.execute(_SEND, CHANNEL, payloads)
        except BaseException:
            self._keys = {**keys, **self._keys}
            connection.terminate()
            raise
        self.sent += len(payloads)

    def _listen(self, connection: Connection, pid: int, channel: str, payload: Any) -> None:
        del channel
        if pid != connection.get_server_pid():
            told = str(payload)
            self._heard(None if told == EVERYTHING else told.split())


def payloads_of(keys: dict[str, None]) -> list[str]:
    """Return the notifications that tell `keys`, each within `PAYLOAD_MAX` and at most `PAYLOADS_MAX` of them."""
    if len(keys) > KEYS_MAX:
        return [EVERYTHING]
    payloads: list[str] = []
    for key in keys:
        if payloads and len(payloads[-1]) + 1 + len(key) <= PAYLOAD_MAX:
            payloads[-1] += f" {key}"
        else:
            payloads.append(key)
    return payloads if len(payloads) <= PAYLOADS_MAX else [EVERYTHING]
