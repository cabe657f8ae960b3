"""A load generator: many connections call functions as fast as they are answered, and heed no advice to wait."""

import asyncio
import json
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlsplit

ANSWER_S = 120.0
"""Longer than any answer may take, so that one that never comes fails the test in words."""


@dataclass(frozen=True)
class Called:
    """One call and its answer.

    Attributes:
        number: The argument, different for each call.
        status: HTTP status.
        headers: Of the answer, names in lower case.
        document: Its JSON body.
    """

    number: int
    status: int
    headers: dict[str, str]
    document: dict


@dataclass(frozen=True)
class Load:
    """Calls of one function by an organisation.

    Attributes:
        url: Of the server.
        key: API key.
        app: Name of the app.
        function: Name of a function that takes a number.
        callers: Connections, each with one call at a time.
        calls: Calls in all.
    """

    url: str
    key: str
    app: str
    function: str
    callers: int
    calls: int

    def request(self, number):
        """Return the bytes of one call."""
        body = json.dumps({"args": [number]}).encode()
        head = (
            f"POST /v1/apps/{self.app}/functions/{self.function}/calls?wait_s=60 HTTP/1.1\r\nHost: load\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def put_on(*loads):
    """Put several loads on at once; return the calls of each, in the order of their answers."""
    return asyncio.run(_put_on(loads))


async def _put_on(loads):
    return await asyncio.gather(*(_all(load) for load in loads))


async def _all(load):
    numbers, found = count(), []
    await asyncio.gather(*(_call_again_and_again(load, numbers, found) for _ in range(load.callers)))
    return found


async def _call_again_and_again(load, numbers, found):
    place = urlsplit(load.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        while (number := next(numbers)) < load.calls:
            writer.write(load.request(number))
            async with asyncio.timeout(ANSWER_S):
                found.append(Called(number, *await _answer(reader)))
    finally:
        writer.close()


async def _answer(reader):
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(first.split()[1]), headers, json.loads(body)
