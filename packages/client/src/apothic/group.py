"""A group: one function called for many items, as a handle."""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from apothic import _groups, _watching
from apothic._collecting import Collector, checked_errors, ended_error, job_of
from apothic._core import Core
from apothic._events import AsyncEvents, follow_async
from apothic._groups import GroupInfo
from apothic._outcomes import OutcomeReader
from apothic._ranges import seconds, whole, wrong
from apothic._steps import Steps
from apothic.client import ControlPlaneClient
from apothic.errors import JobTimeoutError
from apothic.job import Job
from apothic.wire.limits import GROUP_ITEMS_MAX

if TYPE_CHECKING:
    from apothic.streams import JobStreamCursor, StreamEvent

R = TypeVar("R")

LOOK_S = 60.0
"""Bound of reading the outcomes of a group that is known to have ended."""


class JobGroup(Generic[R]):
    """A handle to one group; may be built from a bare id in any process.

    Args:
        group_id: Id as `spawn_map`, `ControlPlaneClient.list_groups` or a command tell it, for example `groups:01jc…`.
        client: The connection to use.
    """

    def __init__(self: JobGroup[Any], group_id: str, client: ControlPlaneClient) -> None:
        if not isinstance(group_id, str) or not group_id.startswith("groups:"):  # pyright: ignore[reportUnnecessaryIsInstance] - users may err
            raise wrong("group_id", group_id, "a group's id such as groups:01jc…")
        self._id = group_id
        self._client = client

    def __repr__(self) -> str:
        return f"<JobGroup {self._id}>"

    @property
    def id(self) -> str:
        """Id of the group."""
        return self._id

    @functools.cached_property
    def aio(self) -> AsyncJobGroup[R]:
        """The same group for asyncio."""
        return AsyncJobGroup(self._id, self._client)

    def status(self) -> str:
        """Return the status now: `running`, `cancelling`, or a final one: `succeeded`, `failed` or `cancelled`."""
        return self.info().status

    def info(self) -> GroupInfo:
        """Return the group as it is now, with how many items have which status."""
        return self._client.get_group(self._id)

    def cancel(self, items: Iterable[int] | None = None) -> str:
        """Ask for the end of the group and return its status after that. Asking twice, or after the end, is fine.

        Args:
            items: Numbers of the only items to cancel, 1 to 10,000 of them; None for the whole group.
        """
        return self._client.cancel_group(self._id, _numbers(items)).status

    def results(self, *, errors: str = "raise", timeout_s: float = 600.0) -> list[R]:
        """Wait for the end of the group and return what `map` returns; resumes after lost connections.

        Args:
            errors: As for `map`.
            timeout_s: Bound of the waiting; the group goes on afterwards. 0 looks once.

        Raises:
            JobTimeoutError: The group did not end in time.
            ApothicError: As for `map`.
        """
        return self._client.run(_results(self._client.core, self._id, errors, timeout_s))

    def wait(self, *, timeout_s: float = 600.0) -> GroupInfo:
        """Wait for the end of the group and return how it ended, without any values; raises for no failed item.

        Args:
            timeout_s: Bound of the waiting; the group goes on afterwards. 0 looks once.

        Raises:
            JobTimeoutError: The group did not end in time.
        """
        return self._client.run(_wait(self._client.core, self._id, timeout_s))

    def jobs(self) -> Jobs[R]:
        """Return the jobs of the items that were sent so far, in their order, without asking for each."""
        return Jobs(self._id, self.info().items, self._client)

    def events(
        self,
        *,
        snapshot: bool = False,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> Generator[StreamEvent, None, None]:
        """Yield the group's events until its end: `group.created`, `group.progress`, `group.end`.

        `group.progress` comes at most once a second and tells how many items have which status. The arguments are those
        of `ControlPlaneClient.watch_app`.
        """
        return self._client.watch_group(
            self._id, snapshot=snapshot, cursor=cursor, last_index=last_index, event_types=event_types
        )


class AsyncJobGroup(Generic[R]):
    """`JobGroup` for asyncio: the same methods, awaited."""

    def __init__(self, group_id: str, client: ControlPlaneClient) -> None:
        self._id = group_id
        self._owner = client
        self._client = client.aio

    async def status(self) -> str:
        """Return the status now."""
        return (await self.info()).status

    async def info(self) -> GroupInfo:
        """Return the group as it is now."""
        return await self._client.get_group(self._id)

    async def cancel(self, items: Iterable[int] | None = None) -> str:
        """Ask for the end of the group, or of some of its items, and return its status after that."""
        return (await self._client.cancel_group(self._id, _numbers(items))).status

    async def results(self, *, errors: str = "raise", timeout_s: float = 600.0) -> list[R]:
        """Wait for the end of the group and return what `map` returns; cancelling the task ends the waiting only."""
        return await self._client.run(_results(self._client.core, self._id, errors, timeout_s))

    async def wait(self, *, timeout_s: float = 600.0) -> GroupInfo:
        """Wait for the end of the group and return how it ended; cancelling the task ends the waiting only."""
        return await self._client.run(_wait(self._client.core, self._id, timeout_s))

    async def jobs(self) -> Jobs[R]:
        """Return the jobs of the items that were sent so far, in their order."""
        return Jobs(self._id, (await self.info()).items, self._owner)

    def events(
        self,
        *,
        snapshot: bool = False,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> AsyncEvents:
        """Yield the group's events until its end; `aclose()` ends the watching at once."""
        reader = _watching.group_reader(
            self._client.core,
            self._id,
            snapshot=snapshot,
            cursor=cursor,
            last_index=last_index,
            event_types=event_types,
        )
        return follow_async(self._client.run, reader)


class Jobs(Sequence[Job[R]]):
    """The jobs of a group's items, made when they are asked for, so that a million of them cost nothing."""

    def __init__(self, group_id: str, items: int, client: ControlPlaneClient) -> None:
        self._group_id = group_id
        self._numbers = range(items)
        self._client = client

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Job[R]: ...

    @overload
    def __getitem__(self, index: slice) -> list[Job[R]]: ...

    def __getitem__(self, index: int | slice) -> Job[R] | list[Job[R]]:
        found = self._numbers[index]
        return self._job(found) if isinstance(found, int) else [self._job(number) for number in found]

    def _job(self, number: int) -> Job[R]:
        return Job(job_of(self._group_id, number), self._client)


class SpawnedJobs(list[Job[R]]):
    """What `spawn_map` returns: the jobs in the order of the items, and the group they belong to.

    Attributes:
        group: The group, with which all of them are waited for or cancelled at once.
    """

    def __init__(self, group: JobGroup[R], jobs: Sequence[Job[R]]) -> None:
        super().__init__(jobs)
        self.group = group


def _results(core: Core, group_id: str, errors: Any, timeout_s: Any) -> Steps[list[Any]]:
    collector = Collector(core, checked_errors(errors))
    collector.group_id = group_id
    limit = seconds("timeout_s", timeout_s)
    if limit == 0:
        yield from _ended(core, group_id)
        limit = LOOK_S
    reader = OutcomeReader(core, group_id, collector.take, core.clock() + limit, limit)
    try:
        while (yield from reader.more()):
            continue
    finally:
        reader.close()
    for number in reader.missing():
        if reader.end is not None:
            collector.fail(number, ended_error(reader.end, number))
    return collector.result()


def _wait(core: Core, group_id: str, timeout_s: Any) -> Steps[GroupInfo]:
    limit = seconds("timeout_s", timeout_s)
    if limit == 0:
        return (yield from _ended(core, group_id))
    reader = _watching.group_reader(core, group_id, timeout_s=limit, event_types=["group.end"])
    try:
        while (yield from reader.more()):
            continue
    finally:
        reader.close()
    return (yield from _groups.get_group(core, group_id))


def _ended(core: Core, group_id: str) -> Steps[GroupInfo]:
    """Return the group; JobTimeoutError when it has not ended."""
    group = yield from _groups.get_group(core, group_id)
    if group.status not in _groups.FINAL:
        raise JobTimeoutError(f"{group_id} has not ended yet; it goes on.", job_id=group_id)
    return group


def _numbers(items: Iterable[int] | None) -> list[int] | None:
    if items is None:
        return None
    return [whole("items", number, 0, GROUP_ITEMS_MAX - 1) for number in items]
