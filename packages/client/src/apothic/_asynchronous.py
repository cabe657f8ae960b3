"""Driver for asyncio callers: performs the core's effects on the running loop. Imported only by `.aio`.

Sockets are used through the loop's socket calls and have no transport, so an idle connection belongs to no loop and
needs no closing before the loop ends.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable
from typing import Any, TypeVar

from apothic._blocking import RECEIVE_SIZE, say, unix_address
from apothic._steps import Dial, Effect, Line, Pause, Receive, Say, Send, Steps

T = TypeVar("T")


async def run(steps: Steps[T]) -> T:
    """Perform an operation and return its result. Cancelling the task ends the waiting and closes the connection."""
    try:
        effect = next(steps)
        while True:
            try:
                result = await _perform(effect)
            except BaseException as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(result)
    except StopIteration as end:
        return end.value


async def _perform(effect: Effect) -> Any:
    loop = asyncio.get_running_loop()
    if isinstance(effect, Receive):
        return await _within(loop.sock_recv(_ready(effect.line.socket), RECEIVE_SIZE), effect.timeout_s)
    if isinstance(effect, Send):
        return await _within(loop.sock_sendall(_ready(effect.line.socket), effect.data), effect.timeout_s)
    if isinstance(effect, Dial):
        return await _within(_dial(effect), effect.timeout_s)
    if isinstance(effect, Pause):
        return await asyncio.sleep(effect.seconds)
    if isinstance(effect, Say):
        return say(effect.text)
    return await asyncio.to_thread(effect.function)


def _ready(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock


async def _within(awaitable: Awaitable[T], timeout_s: float) -> T:
    """Return the result, or raise TimeoutError; `asyncio.wait_for` could swallow a cancellation."""
    if sys.version_info >= (3, 11):  # noqa: UP036 - the client also runs on 3.10
        async with asyncio.timeout(timeout_s):
            return await awaitable
    return await _within_by_timer(awaitable, timeout_s)


async def _within_by_timer(awaitable: Awaitable[T], timeout_s: float) -> T:
    """Do what `asyncio.timeout` does, which Python 3.10 lacks."""
    task = asyncio.current_task()
    expired: list[bool] = []

    def expire() -> None:
        expired.append(True)
        if task is not None:
            task.cancel()

    timer = asyncio.get_running_loop().call_later(timeout_s, expire)
    try:
        return await awaitable
    except asyncio.CancelledError:
        if not expired:
            raise
        raise TimeoutError("timed out") from None
    finally:
        timer.cancel()


async def _dial(effect: Dial) -> Line:
    """Try the addresses of the host in order and return the first connection that opens."""
    if effect.path is not None:
        return await _dial_unix(effect.path)
    loop = asyncio.get_running_loop()
    failure: OSError = OSError(f"{effect.host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(effect.host, effect.port, type=socket.SOCK_STREAM):
        line = Line(_ready(socket.socket(family, kind, protocol)))
        try:
            await loop.sock_connect(line.socket, address)
        except OSError as error:
            line.close()
            failure = error
        except BaseException:
            line.close()
            raise
        else:
            line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return line
    raise failure


async def _dial_unix(path: str) -> Line:
    line = Line(_ready(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
    try:
        with unix_address(path) as address:
            await asyncio.get_running_loop().sock_connect(line.socket, address)
    except BaseException:
        line.close()
        raise
    return line
