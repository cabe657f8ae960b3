"""One call of a generator: its items go out as they come, what it returns is the result."""

from __future__ import annotations

import os
import traceback
from collections.abc import AsyncGenerator, Generator
from typing import Any

from apothic._runtime.items import ItemStream
from apothic._serialize import NotSerializable, ValueTooLarge


class ItemRefused(Exception):
    """An item cannot be sent. The cause says why, `code` is that of the error."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def run_generator(generator: Generator[Any, Any, Any], items: ItemStream) -> Any:
    """Send what a generator yields and return what it returns; it is closed however this ends.

    Raises:
        ItemRefused: An item cannot be sent.
        BaseException: Whatever the generator raises.
    """
    process = os.getpid()
    try:
        while True:
            try:
                item = next(generator)
            except StopIteration as end:
                return end.value
            if os.getpid() != process:
                raise SystemExit(0)  # a child that the generator forked came back; its items are not the call's
            _put(items, item)
            if items.is_full:
                items.wait_for_room()
    finally:
        if os.getpid() == process:
            _close(generator)
            items.flush()


async def run_async_generator(generator: AsyncGenerator[Any, Any], items: ItemStream) -> None:
    """Send what an asynchronous generator yields, like `run_generator`. Other tasks get their turn between batches."""
    from asyncio import sleep

    sent = items.batches_sent
    try:
        async for item in generator:
            _put(items, item)
            if items.is_full:
                await items.room()
            elif items.batches_sent != sent:
                await sleep(0)
            sent = items.batches_sent
    finally:
        await _close_async(generator)
        items.flush()


def _put(items: ItemStream, item: object) -> None:
    try:
        items.put(item)
    except NotSerializable as error:
        raise ItemRefused("result_unserializable") from error
    except ValueTooLarge as error:
        raise ItemRefused("result_too_large") from error


def _close(generator: Generator[Any, Any, Any]) -> None:
    try:
        generator.close()
    except Exception:  # it does not want to end, or its cleaning up failed: the call ends all the same
        traceback.print_exc()


async def _close_async(generator: AsyncGenerator[Any, Any]) -> None:
    try:
        await generator.aclose()
    except Exception:
        traceback.print_exc()
