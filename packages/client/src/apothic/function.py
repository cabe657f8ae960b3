"""Handles to functions that are decorated in this process."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from apothic._batches import columns, single, single_later
from apothic._later import later
from apothic._map_calls import AsyncMaps, Maps, MapTarget
from apothic.options import BatchingSpec, FunctionOptions
from apothic.schedules import Cron, Period
from apothic.wire.functions import FunctionSpec

if TYPE_CHECKING:
    from apothic import _events, _invocations, _items, job, remote_function
    from apothic._events import AsyncEvents, Events
    from apothic._items import AsyncJobItems, JobItems
    from apothic.app import App
    from apothic.client import ControlPlaneClient
    from apothic.job import Job
    from apothic.remote_function import RemoteFunction
else:
    _events, _invocations, _items = later("_events"), later("_invocations"), later("_items")
    job, remote_function = later("job"), later("remote_function")

P = ParamSpec("P")
R = TypeVar("R")


class Function(Maps[R], Generic[P, R]):
    """What `@app.function(...)` returns: the Python function, callable here and, once deployed, remotely.

    Attributes:
        python_function: The undecorated function.
    """

    def __init__(
        self, app: App, python_function: Callable[P, Any], name: str, options: FunctionOptions, *, is_async: bool
    ) -> None:
        functools.update_wrapper(self, python_function)
        self.python_function = python_function
        self._app = app
        self._name = name
        self._options = options
        self._is_async = is_async
        self._is_generator = is_generator_function(python_function)

    def __repr__(self) -> str:
        return f"<Function {self._name} of app {self._app.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, in this process, as it is written; with batching it takes lists."""
        return self.python_function(*args, **kwargs)

    @staticmethod
    def from_name(
        app_name: str,
        function_name: str,
        *,
        client: ControlPlaneClient | None = None,
        base_url: str | None = None,
    ) -> RemoteFunction:
        """Look up a deployed function; see `RemoteFunction.from_name`."""
        return remote_function.RemoteFunction.from_name(app_name, function_name, client=client, base_url=base_url)

    @property
    def name(self) -> str:
        """Name in the app."""
        return self._name

    @property
    def app(self) -> App:
        """The app that it is decorated for."""
        return self._app

    @property
    def options(self) -> FunctionOptions:
        """What the decorator was given."""
        return self._options

    @property
    def kind(self) -> str:
        """Always `function` in this release."""
        return "function"

    @property
    def schedule(self) -> Cron | Period | None:
        """When it runs by itself; None when only calls run it."""
        return self._options.schedule

    @property
    def batching(self) -> BatchingSpec | None:
        """How calls are collected and executed together; None when each is executed by itself."""
        return self._options.batching

    @property
    def service_url(self) -> str | None:
        """Always None: a plain function serves no URL."""
        return None

    @functools.cached_property
    def aio(self) -> AsyncFunctionCalls[P, R]:
        """Remote calls for asyncio."""
        return AsyncFunctionCalls(self._app, self._name, is_generator=self._is_generator)

    @property
    def spec(self) -> FunctionSpec:
        """What a deploy says about the function."""
        return self._options.spec(
            self._name, self.python_function.__qualname__, is_async=self._is_async, is_generator=self._is_generator
        )

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, in this process; with batching as one call, as `remote` does: in a batch of one."""
        if self._options.batching is None:
            return self.python_function(*args, **kwargs)
        return single(self._alone(args, kwargs))

    def _alone(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        by_place, by_name = columns([(args, kwargs)])
        takes_lists: Callable[..., Any] = self.python_function
        return takes_lists(*by_place, **by_name)

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the deployed function remotely and return its result, however long it takes.

        Ctrl-C cancels the job and waits for that answer; a second one leaves at once and prints the job's id.

        Raises:
            NotDeployedError: The app was not deployed in this process.
            RemoteExecutionError: The function failed.
            JobTimeoutError: It exceeded its `timeout_s`.
            SerializationError: An argument or the result cannot travel.
            InvalidRequestError: The function yields items (`is_a_generator`).
        """
        _invocations.refuse_generator(self._name, is_generator=self._is_generator)
        client, function_id = self._app.deployed(self._name)
        return client.run_call(_invocations.remote_call(client.core, function_id, args, kwargs, math.inf))

    def spawn(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Start the deployed function in the background and return its job; the job is durable then.

        Raises:
            NotDeployedError: The app was not deployed in this process.
            CapacityError: Too many calls waited for all of the client's `timeout_s`.
        """
        client, function_id = self._app.deployed(self._name)
        return job.Job(client.run(_invocations.spawn_call(client.core, function_id, args, kwargs)), client)

    def remote_gen(self, *args: P.args, **kwargs: P.kwargs) -> JobItems:
        """Run the deployed generator remotely and yield its items in order, each as soon as it is durable.

        The job is created when the first item is asked for. The generator waits while more than about 4 MiB of its
        items are unread. Ctrl-C, `close()` and leaving the loop cancel the job.

        Raises:
            InvalidRequestError: The function yields no items (`not_a_generator`); raised at once.
            NotDeployedError: The app was not deployed in this process; raised at once.
            SerializationError: An argument cannot travel; raised at once. Or an item, where it stands.
            RemoteExecutionError: The function failed; raised after its last item.
        """
        _invocations.require_generator(self._name, is_generator=self._is_generator)
        client, function_id = self._app.deployed(self._name)
        return _items.iterate(
            client.run, _invocations.item_source(client.core, function_id, args, kwargs, math.inf), cancels=True
        )

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
            NotDeployedError: The app was not deployed in this process.
            InvalidRequestError: `snapshot` or `event_types` is malformed; raised at once.
            SerializationError: An argument cannot travel; raised at once.
        """
        client, function_id = self._app.deployed(self._name)
        reader = _invocations.event_reader(client.core, function_id, args, kwargs, snapshot, event_types)
        return _events.follow(client.run, reader)

    def get_web_url(self) -> str:
        """Raise InvalidRequestError: a plain function serves no URL."""
        _invocations.refuse_web_url(self._name)

    def _map_target(self) -> MapTarget:
        return MapTarget(*self._app.deployed(self._name), self._name, self._is_generator, math.inf)


class AsyncFunction(Function[P, R]):
    """A `Function` around an `async def`: called here it returns a coroutine, called remotely its result."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # pyright: ignore[reportIncompatibleMethodOverride] - a local call is awaited
        """Return the coroutine that runs the function here."""
        return self.python_function(*args, **kwargs)

    def local(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # pyright: ignore[reportIncompatibleMethodOverride] - a local call is awaited
        """Return the coroutine that runs the function here; with batching as one call, as `remote` does."""
        if self._options.batching is None:
            return self.python_function(*args, **kwargs)
        return single_later(self._alone(args, kwargs))


class AsyncFunctionCalls(AsyncMaps[R], Generic[P, R]):
    """Remote calls of a local `Function` for asyncio; cancelling a task stops only what `remote_gen` and maps began."""

    def __init__(self, app: App, name: str, *, is_generator: bool) -> None:
        self._app = app
        self._name = name
        self._is_generator = is_generator

    async def remote(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the deployed function remotely and return its result."""
        _invocations.refuse_generator(self._name, is_generator=self._is_generator)
        client, function_id = self._app.deployed(self._name)
        return await client.aio.run_call(_invocations.remote_call(client.core, function_id, args, kwargs, math.inf))

    async def spawn(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Start the deployed function in the background and return its job."""
        client, function_id = self._app.deployed(self._name)
        return job.Job(await client.aio.run(_invocations.spawn_call(client.core, function_id, args, kwargs)), client)

    def remote_gen(self, *args: P.args, **kwargs: P.kwargs) -> AsyncJobItems:
        """Run the deployed generator and yield its items; `aclose()` and cancelling the task cancel the job."""
        _invocations.require_generator(self._name, is_generator=self._is_generator)
        client, function_id = self._app.deployed(self._name)
        return _items.iterate_async(
            client.aio.run, _invocations.item_source(client.core, function_id, args, kwargs, math.inf), cancels=True
        )

    def remote_events(
        self,
        *args: Any,
        snapshot: bool = False,
        event_types: list[str] | tuple[str, ...] | None = None,
        **kwargs: Any,
    ) -> AsyncEvents:
        """Start the function and yield its job's events until the end; `aclose()` ends the watching at once."""
        client, function_id = self._app.deployed(self._name)
        reader = _invocations.event_reader(client.core, function_id, args, kwargs, snapshot, event_types)
        return _events.follow_async(client.aio.run, reader)

    async def get_web_url(self) -> str:
        """Raise InvalidRequestError: a plain function serves no URL."""
        _invocations.refuse_web_url(self._name)

    def _map_target(self) -> MapTarget:
        return MapTarget(*self._app.deployed(self._name), self._name, self._is_generator, math.inf)


def is_generator_function(python_function: Callable[..., Any]) -> bool:
    """Whether a function yields items, synchronously or not."""
    return inspect.isgeneratorfunction(python_function) or inspect.isasyncgenfunction(python_function)
