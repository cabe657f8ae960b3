"""Handles to deployed functions, looked up by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from apothic._answers import FunctionInfo
from apothic._events import AsyncEvents, Events, follow, follow_async
from apothic._invocations import (
    event_reader,
    item_source,
    refuse_generator,
    refuse_web_url,
    remote_call,
    require_generator,
    spawn_call,
)
from apothic._items import AsyncJobItems, JobItems, iterate, iterate_async
from apothic._loading import is_loading, stop_if_loading
from apothic._map_calls import AsyncMaps, Maps, MapTarget
from apothic.client import ControlPlaneClient, shared_client
from apothic.job import Job
from apothic.options import BatchingSpec, ConcurrencySpec, Retries, batching_of_spec, retries_of_spec
from apothic.schedules import Cron, Period, schedule_of_spec

MAP_S = 600.0
"""Bound of a map whose caller names none."""


class RemoteFunction(Maps[Any]):
    """A deployed function, known by name. Calls run the app's live deployment at the time of the call.

    Made by `from_name`. While an app's file is being loaded by a runner or the CLI nothing is looked up.
    """

    def __init__(
        self, app_name: str, name: str, connect: Callable[[], ControlPlaneClient], info: FunctionInfo | None = None
    ) -> None:
        self._app_name = app_name
        self._name = name
        self._connect = connect
        self._known = info

    def __repr__(self) -> str:
        return f"<RemoteFunction {self._name} of app {self._app_name}>"

    @staticmethod
    def from_name(
        app_name: str,
        function_name: str,
        *,
        client: ControlPlaneClient | None = None,
        base_url: str | None = None,
    ) -> RemoteFunction:
        """Look up a deployed function.

        Args:
            client: Connection to use; wins over `base_url`.
            base_url: Address to use instead of the configured one.

        Raises:
            NotFoundError: No such app or function; the message names near matches.
            CloudNotRunning: Nothing names an address.
        """
        connect = functools.partial(shared_client, client, base_url)
        if is_loading():
            return RemoteFunction(app_name, function_name, connect)
        return RemoteFunction(app_name, function_name, connect, connect().get_function(app_name, function_name))

    @property
    def function_id(self) -> str:
        """Id of the function; stays the same over deployments of its app."""
        return self._info.function_id

    @property
    def name(self) -> str:
        """Name in the app."""
        return self._name

    @property
    def app_name(self) -> str | None:
        """Name of the app."""
        return self._app_name

    @property
    def kind(self) -> str:
        """What it is: `function`."""
        return self._info.kind

    @property
    def service_url(self) -> str | None:
        """Always None: a plain function serves no URL."""
        return None

    @property
    def schedule(self) -> Cron | Period | None:
        """When it runs by itself, as of the look-up; None when only calls run it."""
        return schedule_of_spec(self._info.schedule)

    @property
    def timeout_s(self) -> int:
        """Seconds one attempt may run, as of the look-up."""
        return self._info.timeout_s

    @property
    def queue_timeout_s(self) -> int:
        """Seconds a job may wait for a runner each time it waits, as of the look-up."""
        return self._info.queue_timeout_s

    @property
    def startup_timeout_s(self) -> int:
        """Seconds the start of a runner may take, as of the look-up."""
        return self._info.startup_timeout_s

    @property
    def deadline_s(self) -> int | None:
        """Seconds from the call to the end of the job over all attempts, as of the look-up; None for no limit."""
        return self._info.deadline_s

    @property
    def disconnect_grace_s(self) -> int:
        """Seconds for which nothing may be heard of an attempt's machine, as of the look-up; 0 for the cloud's."""
        return self._info.disconnect_grace_s

    @property
    def retries(self) -> Retries | None:
        """Further attempts after a failure, as of the look-up; None for none."""
        return retries_of_spec(self._info)

    @property
    def at_most_once(self) -> bool:
        """Whether a job is never started a second time, as of the look-up."""
        return self._info.at_most_once

    @property
    def is_generator(self) -> bool:
        """Whether it yields items, as of the look-up."""
        return self._info.is_generator

    @property
    def concurrency(self) -> ConcurrencySpec | None:
        """Bounds on calls at once, as of the look-up."""
        info = self._info
        return ConcurrencySpec(
            concurrent_requests=info.concurrent_requests,
            max_pending_tasks=info.max_pending_tasks,
            max_containers=info.max_containers,
            tasks_per_container=info.tasks_per_container,
        )

    @property
    def batching(self) -> BatchingSpec | None:
        """How calls are collected and executed together, as of the look-up; None when each is executed by itself."""
        return batching_of_spec(self._info)

    @functools.cached_property
    def aio(self) -> AsyncRemoteFunctionCalls:
        """Remote calls for asyncio."""
        return AsyncRemoteFunctionCalls(self)

    def remote(self, *args: Any, timeout_s: float = 600.0, **kwargs: Any) -> Any:
        """Run the function remotely and return its result.

        Ctrl-C cancels the job and waits for that answer; a second one leaves at once and prints the job's id.

        Args:
            timeout_s: Bound of the waiting only, 0 or more; the job goes on afterwards.

        Raises:
            JobTimeoutError: No result in time; carries the job's id. Or the job exceeded its own limit (`is_final`).
            RemoteExecutionError: The function failed.
            JobCancelledError: The job was cancelled.
            ConnectionLostError: The connection ended before the job's id was known; the call may have run.
            SerializationError: An argument or the result cannot travel.
            InvalidRequestError: The function yields items (`is_a_generator`).
        """
        client, function_id = self.target()
        refuse_generator(self._name, is_generator=self.is_generator)
        return client.run_call(remote_call(client.core, function_id, args, kwargs, timeout_s))

    def spawn(self, *args: Any, **kwargs: Any) -> Job[Any]:
        """Start the function in the background and return its job; the job is durable then.

        Raises:
            CapacityError: Too many calls waited for all of the client's `timeout_s`.
            SerializationError: An argument cannot travel.
        """
        client, function_id = self.target()
        return Job(client.run(spawn_call(client.core, function_id, args, kwargs)), client)

    def remote_gen(self, *args: Any, timeout_s: float = 600.0, **kwargs: Any) -> JobItems:
        """Run the generator remotely and yield its items in order, each as soon as it is durable.

        The job is created when the first item is asked for. The generator waits while more than about 4 MiB of its
        items are unread. Ctrl-C, `close()` and leaving the loop cancel the job.

        Args:
            timeout_s: Bound of the whole iteration, 0 or more; the job goes on afterwards, and `Job.wait_gen` reads on.

        Raises:
            InvalidRequestError: The function yields no items (`not_a_generator`); raised at once.
            SerializationError: An argument cannot travel; raised at once. Or an item, where it stands.
            JobTimeoutError: Not all items came in time; carries the job's id.
            RemoteExecutionError: The function failed; raised after its last item.
        """
        client, function_id = self.target()
        require_generator(self._name, is_generator=self.is_generator)
        return iterate(client.run, item_source(client.core, function_id, args, kwargs, timeout_s), cancels=True)

    def remote_events(
        self,
        *args: Any,
        snapshot: bool = False,
        event_types: list[str] | tuple[str, ...] | None = None,
        **kwargs: Any,
    ) -> Events:
        """Start the function in the background and yield its job's events until the end, as `Job.watch` does.

        The job is created when the first event is asked for. Leaving the loop, and Ctrl-C, end the watching only. A
        function that has parameters named `snapshot` or `event_types` is spawned and watched instead.

        Args:
            snapshot: Begin with `job.snapshot`.
            event_types: Names of the events to yield; None or empty for all.

        Raises:
            InvalidRequestError: `snapshot` or `event_types` is malformed; raised at once.
            SerializationError: An argument cannot travel; raised at once.
        """
        client, function_id = self.target()
        reader = event_reader(client.core, function_id, args, kwargs, snapshot, event_types)
        return follow(client.run, reader)

    def get_web_url(self) -> str:
        """Raise InvalidRequestError: a plain function serves no URL."""
        refuse_web_url(self._name)

    def target(self) -> tuple[ControlPlaneClient, str]:
        """Return the client and the function's id; ends the load of an app's file instead when one is running."""
        stop_if_loading()
        info = self._info
        return self._client, info.function_id

    def _map_target(self) -> MapTarget:
        return MapTarget(*self.target(), self._name, self.is_generator, MAP_S)

    @functools.cached_property
    def _client(self) -> ControlPlaneClient:
        return self._connect()

    @property
    def _info(self) -> FunctionInfo:
        if self._known is None:
            self._known = self._client.get_function(self._app_name, self._name)
        return self._known


class AsyncRemoteFunctionCalls(AsyncMaps[Any]):
    """Remote calls of a `RemoteFunction` for asyncio; cancelling a task stops only what `remote_gen` and maps began."""

    def __init__(self, function: RemoteFunction) -> None:
        self._function = function

    async def remote(self, *args: Any, timeout_s: float = 600.0, **kwargs: Any) -> Any:
        """Run the function remotely and return its result."""
        client, function_id = self._function.target()
        refuse_generator(self._function.name, is_generator=self._function.is_generator)
        return await client.aio.run_call(remote_call(client.core, function_id, args, kwargs, timeout_s))

    async def spawn(self, *args: Any, **kwargs: Any) -> Job[Any]:
        """Start the function in the background and return its job."""
        client, function_id = self._function.target()
        return Job(await client.aio.run(spawn_call(client.core, function_id, args, kwargs)), client)

    def remote_gen(self, *args: Any, timeout_s: float = 600.0, **kwargs: Any) -> AsyncJobItems:
        """Run the generator and yield its items; `aclose()` and cancelling the task cancel the job."""
        client, function_id = self._function.target()
        require_generator(self._function.name, is_generator=self._function.is_generator)
        source = item_source(client.core, function_id, args, kwargs, timeout_s)
        return iterate_async(client.aio.run, source, cancels=True)

    def remote_events(
        self,
        *args: Any,
        snapshot: bool = False,
        event_types: list[str] | tuple[str, ...] | None = None,
        **kwargs: Any,
    ) -> AsyncEvents:
        """Start the function and yield its job's events until the end; `aclose()` ends the watching at once."""
        client, function_id = self._function.target()
        reader = event_reader(client.core, function_id, args, kwargs, snapshot, event_types)
        return follow_async(client.aio.run, reader)

    async def get_web_url(self) -> str:
        """Raise InvalidRequestError: a plain function serves no URL."""
        refuse_web_url(self._function.name)

    def _map_target(self) -> MapTarget:
        function = self._function
        return MapTarget(*function.target(), function.name, function.is_generator, MAP_S)
