"""The maps that both kinds of handle to a function offer, blocking and for asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from apothic._later import later

if TYPE_CHECKING:
    from apothic import _collecting, _invocations, _mapping, _maps
    from apothic import group as _group
    from apothic._mapping import Mapped, Unordered
    from apothic._maps import MapCall, Wishes
    from apothic.client import ControlPlaneClient
    from apothic.group import JobGroup, Jobs, SpawnedJobs
else:
    _collecting, _group, _invocations = later("_collecting"), later("group"), later("_invocations")
    _mapping, _maps = later("_mapping"), later("_maps")

R = TypeVar("R")


class Options(NamedTuple):
    """What a caller says about a map, not checked yet."""

    errors: Any
    stop_after: Any
    key: Any
    timeout_s: Any


class MapTarget(NamedTuple):
    """What the maps need to know of a handle.

    Attributes:
        timeout_s: Bound of a map whose caller names none.
    """

    client: ControlPlaneClient
    function_id: str
    name: str
    is_generator: bool
    timeout_s: float

    def mapped(self, options: Options, *, spread: bool = False, keeps: bool = True) -> Mapped:
        """Return a map whose values are returned together."""
        wishes = self._wishes(options, spread=spread)
        errors = _collecting.checked_errors(options.errors, _collecting.ON_ERRORS if keeps else ("raise", "drop"))
        return _mapping.Mapped(self.client.core, self.function_id, wishes, errors, keeps=keeps)

    def unordered(self, options: Options) -> Unordered:
        """Return a map whose values are handed on as they come."""
        wishes = self._wishes(options, spread=False)
        return _mapping.Unordered(
            self.client.core, self.function_id, wishes, _collecting.checked_errors(options.errors)
        )

    def spawned(self, stop_after: Any, key: Any) -> MapCall:
        """Return a map of which only the inputs are sent."""
        wishes = _maps.Wishes.of(spread=False, key=key, stop_after=stop_after, timeout_s=float("inf"))
        return _maps.MapCall(self.client.core, self.function_id, wishes, _ignore, needs_group=True)

    def jobs(self, call: MapCall) -> SpawnedJobs[Any]:
        """Return the jobs of a map whose inputs were sent."""
        group: JobGroup[Any] = _group.JobGroup(call.group_id, self.client)
        jobs: Jobs[Any] = _group.Jobs(call.group_id, call.items, self.client)
        return _group.SpawnedJobs(group, jobs)

    def _wishes(self, options: Options, *, spread: bool) -> Wishes:
        _invocations.refuse_generator(self.name, is_generator=self.is_generator)
        limit = self.timeout_s if options.timeout_s is None else options.timeout_s
        return _maps.Wishes.of(spread=spread, key=options.key, stop_after=options.stop_after, timeout_s=limit)


def _ignore(_number: int, _entry: bytes, _python: str | None) -> None:
    """Take an outcome that nobody asked for."""


class Maps(Generic[R]):
    """One function called for many items, blocking. Each item is a job `jobs:GROUP.n` of one group.

    Items are taken from the iterable while earlier ones run already; it is never turned into a list, and up to 10
    million items are fine. All methods raise SerializationError or TooLargeError for an item that cannot be sent,
    naming its number; the items sent before it are cancelled.
    """

    def _map_target(self) -> MapTarget:
        raise NotImplementedError

    def map(
        self,
        items: Iterable[Any],
        *,
        errors: str = "raise",
        stop_after: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> list[R]:
        """Call the function with each item as its one argument and return the results in the order of the items.

        Ctrl-C cancels the group and waits for that answer; a second one leaves at once and prints the group's id.

        Args:
            errors: `raise` the failure of the item with the smallest number, once all items have ended; `collect`
                exceptions in the places of results; `drop` items that failed from the list.
            stop_after: Cancel all other items once so many have failed, 1 or more; None never does. Items that were
                not taken from the iterable by then are not, and have no place in the list.
            key: 1 to 128 characters. The same call with the same key, also by another process after this one died,
                goes on with the same group: items it has already are skipped, results of ended ones are returned. The
                group is then left alone by Ctrl-C, errors and time limits.
            timeout_s: Bound of all of it, 0 or more; the group goes on afterwards if it has all its items, else it is
                cancelled. None stands for 600 s of a `RemoteFunction`, and for no limit of a local one.

        Raises:
            RemoteExecutionError: An item failed; `item` is its number, `job_id` its job.
            JobTimeoutError: Not all items ended in time, `job_id` is the group's id; or an item exceeded a limit of
                its own (`is_final`).
            JobCancelledError: The group was cancelled by somebody else.
            SerializationError: An item or a result cannot travel.
            ConflictError: The group with this key was made with other options (`group_differs`).
            InvalidRequestError: An option is malformed, or the function yields items (`is_a_generator`).
        """
        target, options = self._map_target(), Options(errors, stop_after, key, timeout_s)
        return target.mapped(options).run(target.client.run_call, items)

    def starmap(
        self,
        items: Iterable[Iterable[Any]],
        *,
        errors: str = "raise",
        stop_after: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> list[R]:
        """As `map`, each item being a list or tuple of positional arguments."""
        target, options = self._map_target(), Options(errors, stop_after, key, timeout_s)
        return target.mapped(options, spread=True).run(target.client.run_call, items)

    def for_each(
        self,
        items: Iterable[Any],
        *,
        errors: str = "raise",
        stop_after: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """As `map`, for what the function does: results are not kept, and `errors` is `raise` or `drop`."""
        target, options = self._map_target(), Options(errors, stop_after, key, timeout_s)
        target.mapped(options, keeps=False).run(target.client.run_call, items)

    def map_unordered(
        self,
        items: Iterable[Any],
        *,
        errors: str = "raise",
        stop_after: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> Generator[tuple[int, R], None, None]:
        """Yield the number and the result of each item in the order in which they end, and keep none of them.

        Items are taken from the iterable while the loop asks for results. Leaving the loop, or `close()`, cancels the
        group unless it has a key. Arguments as for `map`, but `raise` raises the first failure at once and so leaves
        the loop; `collect` yields exceptions in the places of results.
        """
        target, options = self._map_target(), Options(errors, stop_after, key, timeout_s)
        return target.unordered(options).run(target.client.run_call, items)

    def spawn_map(
        self, items: Iterable[Any], *, stop_after: int | None = None, key: str | None = None
    ) -> SpawnedJobs[R]:
        """Start the function for each item in the background and return the jobs in the order of the items.

        Returns once all items were taken and are durable; while too much waits already, that may take long. `group` of
        what is returned is the group they belong to. Arguments as for `map`.
        """
        target = self._map_target()
        call = target.spawned(stop_after, key)
        _mapping.start(target.client.run_call, call, items)
        return target.jobs(call)


class AsyncMaps(Generic[R]):
    """`Maps` for asyncio; `items` may be async iterables too.

    Cancelling the task that waits for a map cancels its group, unless it has a key.
    Items are taken and sent in a task of their own, so results come also while an iterable waits for its next item.
    """

    def _map_target(self) -> MapTarget:
        raise NotImplementedError

    async def map(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        errors: str = "raise",
        stop_after: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> list[R]:
        """Call the function with each item as its one argument and return the results in the order of the items."""
        target, options = self._map_target(), Options(errors, stop_after, key, timeout_s)
        return await target.mapped(options).run_async(target.client.aio.run_call, items)

    async def starmap(
        self,
        items: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
        *,
        errors: str = "raise",
        stop_after: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> list[R]:
        """As `map`, each item being a list or tuple of positional arguments."""
        target, options = self._map_target(), Options(errors, stop_after, key, timeout_s)
        return await target.mapped(options, spread=True).run_async(target.client.aio.run_call, items)

    async def for_each(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        errors: str = "raise",
        stop_after: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """As `map`, without results; `errors` is `raise` or `drop`."""
        target, options = self._map_target(), Options(errors, stop_after, key, timeout_s)
        await target.mapped(options, keeps=False).run_async(target.client.aio.run_call, items)

    def map_unordered(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        errors: str = "raise",
        stop_after: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[tuple[int, R], None]:
        """Yield the number and the result of each item in the order in which they end; `aclose()` cancels the group."""
        target, options = self._map_target(), Options(errors, stop_after, key, timeout_s)
        return target.unordered(options).run_async(target.client.aio.run_call, items)

    async def spawn_map(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        stop_after: int | None = None,
        key: str | None = None,
    ) -> SpawnedJobs[R]:
        """Start the function for each item in the background and return the jobs in the order of the items."""
        target = self._map_target()
        call = target.spawned(stop_after, key)
        await _mapping.start_async(target.client.aio.run_call, call, items)
        return target.jobs(call)
