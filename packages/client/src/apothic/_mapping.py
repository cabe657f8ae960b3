"""Driving a map: items taken from an iterable one by one, blocking or with asyncio, and what callers get of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from apothic._collecting import Collector, ended_error, value_of
from apothic._core import Core
from apothic._maps import SEND_AFTER_S, MapCall, Wishes
from apothic._ranges import wrong
from apothic._steps import Steps
from apothic.errors import ApothicError

if TYPE_CHECKING:
    from asyncio import Future

Run = Callable[[Steps[Any]], Any]
RunAsync = Callable[[Steps[Any]], Coroutine[Any, Any, Any]]


class Mapped:
    """A map whose values are kept until all are there.

    Args:
        errors: What to do with items that fail: one of `apothic._collecting.ON_ERRORS`.
        keeps: Whether values are kept at all.
    """

    def __init__(self, core: Core, function_id: str, wishes: Wishes, errors: str, *, keeps: bool = True) -> None:
        self._collector = Collector(core, errors, keeps=keeps)
        self.call = MapCall(core, function_id, wishes, self._take)

    def run(self, run: Run, items: Any) -> list[Any]:
        """Return the values, with a blocking driver."""
        for _ in drive(run, self.call, items):
            continue
        return self._result()

    async def run_async(self, run: RunAsync, items: Any) -> list[Any]:
        """Return the values, with asyncio."""
        async for _ in drive_async(run, self.call, items):
            continue
        return self._result()

    def _take(self, number: int, entry: bytes, python: str | None) -> None:
        self._collector.group_id = self.call.group_id
        self._collector.take(number, entry, python)

    def _result(self) -> list[Any]:
        for number, group in self.call.missing():
            self._collector.fail(number, ended_error(group, number))
        return self._collector.result()


class Unordered:
    """A map whose values are handed on as items end."""

    def __init__(self, core: Core, function_id: str, wishes: Wishes, errors: str) -> None:
        self._core = core
        self._errors = errors
        self._found: list[tuple[int, Any]] = []
        self._failure: ApothicError | None = None
        self.call = MapCall(core, function_id, wishes, self._take)

    def run(self, run: Run, items: Any) -> Generator[tuple[int, Any], None, None]:
        """Yield the number and the value of each item, with a blocking driver."""
        steps = drive(run, self.call, items)
        try:
            for _ in steps:
                yield from self._taken()
        finally:
            steps.close()
        self._add_missing()
        yield from self._taken()

    async def run_async(self, run: RunAsync, items: Any) -> AsyncGenerator[tuple[int, Any], None]:
        """Yield the number and the value of each item, with asyncio."""
        steps = drive_async(run, self.call, items)
        try:
            async for _ in steps:
                for found in self._taken():
                    yield found
        finally:
            await steps.aclose()
        self._add_missing()
        for found in self._taken():
            yield found

    def _take(self, number: int, entry: bytes, python: str | None) -> None:
        try:
            self._found.append((number, value_of(self._core, self.call.group_id, number, entry, python)))
        except ApothicError as error:
            self._fail(number, error)

    def _fail(self, number: int, error: ApothicError) -> None:
        if self._errors == "collect":
            self._found.append((number, error))
        elif self._errors == "raise" and self._failure is None:
            self._failure = error

    def _taken(self) -> Iterator[tuple[int, Any]]:
        found, self._found = self._found, []
        yield from found
        if self._failure is not None:
            raise self._failure

    def _add_missing(self) -> None:
        for number, group in self.call.missing():
            self._fail(number, ended_error(group, number))


def drive(run: Run, call: MapCall, items: Any) -> Generator[None, None, None]:
    """Do a whole map with a blocking driver, and yield whenever outcomes may have come; ending it early leaves it."""
    try:
        yield from feed(run, call, items)
        while run(call.more()):
            yield
    except BaseException as error:
        run(call.leave(error))
        raise
    finally:
        call.stop_reading()


def feed(run: Run, call: MapCall, items: Any, *, looks: bool = True) -> Generator[None, None, None]:
    """Send all items; yields after every sending."""
    entries = _iterator(items)
    if call.wants_group_first:
        run(call.begin())
    if not call.is_fed:
        for item in entries:
            if call.add(item):
                run(call.send(looks=looks))
                yield
                if call.is_fed:
                    break
    run(call.close(looks=looks))


def start(run: Run, call: MapCall, items: Any) -> None:
    """Send all items with a blocking driver, and read nothing."""
    try:
        for _ in feed(run, call, items, looks=False):
            continue
    except BaseException as error:
        run(call.leave(error))
        raise


async def start_async(run: RunAsync, call: MapCall, items: Any) -> None:
    """Send all items with asyncio, and read nothing."""
    try:
        await feed_async(run, call, items)
    except BaseException as error:
        await run(call.leave(error))
        raise


async def drive_async(run: RunAsync, call: MapCall, items: Any) -> AsyncGenerator[None, None]:
    """Do a whole map with asyncio: items are taken and sent in one task, outcomes are read in another."""
    import asyncio

    begun: Future[None] = asyncio.get_running_loop().create_future()
    feeding = asyncio.ensure_future(feed_async(run, call, items, begun))
    reading: Future[bool] | None = None
    try:
        await asyncio.wait({feeding, begun}, return_when=asyncio.FIRST_COMPLETED)
        while True:
            if feeding.done():
                feeding.result()
            reading = reading or asyncio.ensure_future(run(call.more()))
            await asyncio.wait({reading} if feeding.done() else {reading, feeding}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                goes_on, reading = reading.result(), None
                if not goes_on:
                    break
                yield
    except BaseException as error:
        await _stop(feeding, reading)
        await run(call.leave(error))
        raise
    finally:
        await _stop(feeding, reading)
        call.stop_reading()


async def feed_async(run: RunAsync, call: MapCall, items: Any, begun: Future[None] | None = None) -> None:
    """Send all items and read nothing meanwhile; `begun` is told when the group exists."""
    if call.wants_group_first:
        await run(call.begin())
        _tell(begun)
    if not call.is_fed:
        await _send_all(run, call, items, begun)
    await run(call.close(looks=False))


async def _send_all(run: RunAsync, call: MapCall, items: Any, begun: Future[None] | None) -> None:
    """Take all items, and send what was taken when it is enough or the next item is late."""
    import asyncio

    sending = asyncio.Lock()

    async def send() -> None:
        async with sending:
            await run(call.send(looks=False))
        _tell(begun)

    async def take() -> None:
        async for item in _async_iterator(items):
            if call.add(item):
                await send()
                if call.is_fed:
                    break

    async def send_late() -> None:
        while not call.is_fed:
            await asyncio.sleep(SEND_AFTER_S)
            if call.has_unsent:
                await send()

    tasks = asyncio.ensure_future(take()), asyncio.ensure_future(send_late())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        async with sending:  # what is on its way arrives
            for task in tasks:
                if task.done():
                    task.result()
    finally:
        await _stop(*tasks)


def _tell(begun: Future[None] | None) -> None:
    if begun is not None and not begun.done():
        begun.set_result(None)


async def _stop(*tasks: Future[Any] | None) -> None:
    """Cancel what still runs and wait for its end; its outcome no longer matters."""
    import asyncio

    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def _iterator(items: Any) -> Iterator[Any]:
    if not isinstance(items, Iterable):
        hint = "; async iterables go with .aio" if isinstance(items, AsyncIterable) else ""
        raise wrong("items", items, f"an iterable{hint}")
    return iter(cast("Iterable[Any]", items))


async def _async_iterator(items: Any) -> AsyncGenerator[Any, None]:
    if isinstance(items, AsyncIterable):
        async for item in cast("AsyncIterable[Any]", items):
            yield item
        return
    for item in _iterator(items):
        yield item
