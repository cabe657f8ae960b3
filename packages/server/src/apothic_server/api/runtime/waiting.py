"""Waits for futures without ever cancelling them: they belong to others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

FirstDone = Callable[[tuple[asyncio.Future[Any], ...], float | None], Awaitable[None]]
"""Returns when one of the futures is done or the seconds have passed (None: no bound)."""


async def first_done(futures: tuple[asyncio.Future[Any], ...], timeout_s: float | None) -> None:
    """Wait on the running loop's clock. Cheaper than `asyncio.wait`: no task, no set, one timer."""
    for future in futures:
        if future.done():
            return
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = None if timeout_s is None else loop.call_later(timeout_s, wake)
    for future in futures:
        future.add_done_callback(wake)
    try:
        await waiter
    finally:
        if timer is not None:
            timer.cancel()
        for future in futures:
            future.remove_done_callback(wake)
