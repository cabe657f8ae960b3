"""HTTP as the harness speaks it: one request on one connection, nothing retried, everything that happens visible."""

import asyncio
import json
from dataclasses import dataclass

CONNECT_S = 5.0


class Broken(Exception):
    """The connection could not be made, or ended before the answer did."""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Api:
    """One address of a cloud with a key."""

    def __init__(self, host, port, key):
        self.host, self.port, self.key = host, port, key

    async def ask(self, method, path, body=None, *, key="", deadline_s=30.0):
        """Send a request and return the whole answer.

        Args:
            key: Idempotency key.

        Raises:
            Broken: There is no whole answer, for whatever reason.
        """
        try:
            async with asyncio.timeout(deadline_s):
                reader, writer = await self._send(method, path, body, {"Idempotency-Key": key} if key else {})
                try:
                    status, headers = await _head(reader)
                    return Answer(status, await _body(reader, headers))
                finally:
                    writer.close()
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            raise Broken(f"{type(error).__name__}: {error}") from error

    async def events(self, path, seen, *, deadline_s=60.0):
        """Read server-sent events into `seen` as (index, kind); return whether the stream ended by itself.

        Raises:
            Broken: It did not begin, or was answered with an error.
        """
        try:
            async with asyncio.timeout(deadline_s):
                reader, writer = await self._send("GET", path, None, {"Accept": "text/event-stream"})
                try:
                    status, headers = await _head(reader)
                    if status != 200:
                        raise Broken(f"status {status}")
                    await _events(_Pieces(reader, headers), seen)
                finally:
                    writer.close()
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            if not seen:
                raise Broken(f"{type(error).__name__}: {error}") from error
            return False
        return True

    async def _send(self, method, path, body, extra):
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(self.host, self.port)
        data = b"" if body is None else json.dumps(body).encode()
        head = {
            "Host": f"{self.host}:{self.port}",
            "Authorization": f"Bearer {self.key}",
            "Connection": "close",
            "Content-Length": str(len(data)),
            **({"Content-Type": "application/json"} if body is not None else {}),
            **extra,
        }
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + data)
        return reader, writer


async def _head(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    return int(head[0].split()[1]), headers


async def _body(reader, headers):
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return b"".join([piece async for piece in _Pieces(reader, headers)])


class _Pieces:
    """The pieces of a chunked body; ends only with its last chunk."""

    def __init__(self, reader, headers):
        assert headers.get("transfer-encoding") == "chunked", headers
        self._reader = reader

    async def __aiter__(self):
        while size := int(await self._reader.readline(), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readline()


async def _events(pieces, seen):
    text = b""
    async for piece in pieces:
        *whole, text = (text + piece).split(b"\n\n")
        for event in whole:
            fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if b": " in line)
            kind = fields.get(b"event", b"").decode()
            if kind and not kind.endswith(".alive"):
                seen.append((int(fields[b"id"]), kind))
