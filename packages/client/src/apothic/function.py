"""Handles to functions: `Function` for one decorated here, `RemoteFunction` for one looked up by name."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar

from apothic import _calls, _operations
from apothic._answers import FunctionInfo
from apothic._core import Core
from apothic._loading import is_loading, stop_if_loading
from apothic._ranges import seconds
from apothic._results import encode_call, result_of
from apothic._steps import Steps
from apothic.client import ControlPlaneClient, shared_client
from apothic.errors import InvalidRequestError
from apothic.job import Job
from apothic.options import ConcurrencySpec, FunctionOptions, Retries, retries_of_spec
from apothic.wire.functions import FunctionSpec

if TYPE_CHECKING:
    from apothic.app import App

P = ParamSpec("P")
R = TypeVar("R")


class Function(Generic[P, R]):
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

    def __repr__(self) -> str:
        return f"<Function {self._name} of app {self._app.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, in this process."""
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
        return RemoteFunction.from_name(app_name, function_name, client=client, base_url=base_url)

    @property
    def name(self) -> str:
        """Name in the app."""
        return self._name

    @property
    def options(self) -> FunctionOptions:
        """What the decorator was given."""
        return self._options

    @property
    def kind(self) -> str:
        """Always `function` in this release."""
        return "function"

    @property
    def schedule(self) -> None:
        """Always None: this release has no schedules."""
        return None

    @property
    def service_url(self) -> str | None:
        """Always None: a plain function serves no URL."""
        return None

    @functools.cached_property
    def aio(self) -> AsyncFunctionCalls[P, R]:
        """Remote calls for asyncio."""
        return AsyncFunctionCalls(self._app, self._name)

    @property
    def spec(self) -> FunctionSpec:
        """What a deploy says about the function."""
        return self._options.spec(self._name, self.python_function.__qualname__, is_async=self._is_async)

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, in this process."""
        return self.python_function(*args, **kwargs)

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the deployed function remotely and return its result, however long it takes.

        Ctrl-C cancels the job and waits for that answer; a second one leaves at once and prints the job's id.

        Raises:
            NotDeployedError: The app was not deployed in this process.
            RemoteExecutionError: The function failed.
            JobTimeoutError: It exceeded its `timeout_s`.
            SerializationError: An argument or the result cannot travel.
        """
        client, function_id = self._app.deployed(self._name)
        return client.run_call(_remote(client.core, function_id, args, kwargs, math.inf))

    def spawn(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Start the deployed function in the background and return its job; the job is durable then.

        Raises:
            NotDeployedError: The app was not deployed in this process.
            CapacityError: Too many calls waited for all of the client's `timeout_s`.
        """
        client, function_id = self._app.deployed(self._name)
        return Job(client.run(_spawn(client.core, function_id, args, kwargs)), client)

    def get_web_url(self) -> str:
        """Raise InvalidRequestError: a plain function serves no URL."""
        _refuse_web_url(self._name)


class AsyncFunction(Function[P, R]):
    """A `Function` around an `async def`: called here it returns a coroutine, called remotely its result."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # pyright: ignore[reportIncompatibleMethodOverride] - a local call is awaited
        """Return the coroutine that runs the function here."""
        return self.python_function(*args, **kwargs)

    def local(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # pyright: ignore[reportIncompatibleMethodOverride] - a local call is awaited
        """Return the coroutine that runs the function here."""
        return self.python_function(*args, **kwargs)


class AsyncFunctionCalls(Generic[P, R]):
    """Remote calls of a local `Function` for asyncio; cancelling a task never stops a job."""

    def __init__(self, app: App, name: str) -> None:
        self._app = app
        self._name = name

    async def remote(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the deployed function remotely and return its result."""
        client, function_id = self._app.deployed(self._name)
        return await client.aio.run_call(_remote(client.core, function_id, args, kwargs, math.inf))

    async def spawn(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Start the deployed function in the background and return its job."""
        client, function_id = self._app.deployed(self._name)
        return Job(await client.aio.run(_spawn(client.core, function_id, args, kwargs)), client)

    async def get_web_url(self) -> str:
        """Raise InvalidRequestError: a plain function serves no URL."""
        _refuse_web_url(self._name)


class RemoteFunction:
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
    def schedule(self) -> None:
        """Always None: this release has no schedules."""
        return None

    @property
    def timeout_s(self) -> int:
        """Seconds one attempt may run, as of the look-up."""
        return self._info.timeout_s

    @property
    def retries(self) -> Retries | None:
        """Further attempts after a failure, as of the look-up; None for none."""
        return retries_of_spec(self._info)

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
    def batching(self) -> None:
        """Always None: this release has no batching."""
        return None

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
        """
        client, function_id = self.target()
        return client.run_call(_remote(client.core, function_id, args, kwargs, timeout_s))

    def spawn(self, *args: Any, **kwargs: Any) -> Job[Any]:
        """Start the function in the background and return its job; the job is durable then.

        Raises:
            CapacityError: Too many calls waited for all of the client's `timeout_s`.
            SerializationError: An argument cannot travel.
        """
        client, function_id = self.target()
        return Job(client.run(_spawn(client.core, function_id, args, kwargs)), client)

    def get_web_url(self) -> str:
        """Raise InvalidRequestError: a plain function serves no URL."""
        _refuse_web_url(self._name)

    def target(self) -> tuple[ControlPlaneClient, str]:
        """Return the client and the function's id; ends the load of an app's file instead when one is running."""
        stop_if_loading()
        info = self._info
        return self._client, info.function_id

    @functools.cached_property
    def _client(self) -> ControlPlaneClient:
        return self._connect()

    @property
    def _info(self) -> FunctionInfo:
        if self._known is None:
            self._known = self._client.get_function(self._app_name, self._name)
        return self._known


class AsyncRemoteFunctionCalls:
    """Remote calls of a `RemoteFunction` for asyncio; cancelling a task never stops a job."""

    def __init__(self, function: RemoteFunction) -> None:
        self._function = function

    async def remote(self, *args: Any, timeout_s: float = 600.0, **kwargs: Any) -> Any:
        """Run the function remotely and return its result."""
        client, function_id = self._function.target()
        return await client.aio.run_call(_remote(client.core, function_id, args, kwargs, timeout_s))

    async def spawn(self, *args: Any, **kwargs: Any) -> Job[Any]:
        """Start the function in the background and return its job."""
        client, function_id = self._function.target()
        return Job(await client.aio.run(_spawn(client.core, function_id, args, kwargs)), client)

    async def get_web_url(self) -> str:
        """Raise InvalidRequestError: a plain function serves no URL."""
        _refuse_web_url(self._function.name)


def _remote(
    core: Core, function_id: str, args: Sequence[Any], kwargs: Mapping[str, Any], timeout_s: float
) -> Steps[Any]:
    limit = seconds("timeout_s", timeout_s)
    outcome = yield from _calls.call(core, function_id, encode_call(args, kwargs), timeout_s=limit)
    return result_of(outcome, allow_pickle=core.allow_pickle)


def _spawn(core: Core, function_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Steps[str]:
    return _operations.spawn(core, function_id, encode_call(args, kwargs))


def _refuse_web_url(name: str) -> NoReturn:
    raise InvalidRequestError(f"{name} is a plain function and serves no URL.", code="not_a_service")
