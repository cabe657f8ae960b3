"""`App`: a named group of functions that is deployed together.

This module and what it imports are loaded by each zygote before it can run a function. What deploys and calls is not
needed for that, so it is imported where it is used.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Protocol, TypeVar, cast, overload

from apothic._composition import Composition
from apothic._later import later
from apothic._loading import is_in_runner, stop_if_loading
from apothic._ranges import wrong
from apothic.errors import InvalidRequestError, NotDeployedError, NotSupportedError
from apothic.function import AsyncFunction, Function
from apothic.image import Image
from apothic.options import BatchingSpec, FunctionOptions, Retries, batching_of, retries_of
from apothic.placement import Placement
from apothic.schedules import Cron, Period, schedule_of
from apothic.wire.attempts import SOCKET_VARIABLE
from apothic.wire.functions import FunctionSpec, Manifest
from apothic.wire.names import APP_NAME_RULE, FUNCTION_NAME_RULE, is_app_name, is_function_name

if TYPE_CHECKING:
    from apothic import _deploy
    from apothic import client as _client
    from apothic._archive import Packed
    from apothic._deploy import AppFile, Deployed
    from apothic._packages import Packages
    from apothic._placed_files import AddedFiles
    from apothic._steps import Steps
    from apothic.client import ControlPlaneClient
    from apothic.remote_app import RemoteApp
else:
    _client, _deploy = later("client"), later("_deploy")

P = ParamSpec("P")
R = TypeVar("R")


class FunctionDecorator(Protocol):
    """What `app.function(...)` returns: turns a Python function into a `Function`."""

    @overload
    def __call__(self, python_function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncFunction[P, R]: ...
    @overload
    def __call__(self, python_function: Callable[P, R], /) -> Function[P, R]: ...
    def __call__(self, python_function: Callable[P, Any], /) -> Any: ...


class App(Composition):
    """A named group of functions.

    Args:
        name: Name of the app on the server; 1 to 63 letters, digits, dots, dashes and underscores, beginning and ending
            with a letter or digit.
        client: Connection to deploy with; None uses the configured address when it is first needed.

    Raises:
        InvalidRequestError: The name is not allowed.
    """

    def __init__(self, name: str, *, client: ControlPlaneClient | None = None) -> None:
        if not isinstance(name, str) or not is_app_name(name):  # pyright: ignore[reportUnnecessaryIsInstance] - users may err
            raise wrong("name", name, APP_NAME_RULE)
        super().__init__()
        self._name = name
        self._given_client = client
        self._function_ids: dict[str, str] = {}
        self._deployment_id: str | None = None
        self._module = _caller_module(inspect.currentframe())

    def __repr__(self) -> str:
        return f"<App {self._name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"the app {self._name} and its functions stay in the process that defines them; send a name and look it up "
            f'there: RemoteFunction.from_name("{self._name}", ...)'
        )

    @property
    def name(self) -> str:
        """Name of the app on the server."""
        return self._name

    @staticmethod
    def lookup(name: str, *, client: ControlPlaneClient | None = None, base_url: str | None = None) -> RemoteApp:
        """Return the handle of a deployed app.

        Args:
            client: Connection to use; wins over `base_url`.
            base_url: Address to use instead of the configured one.

        Raises:
            NotFoundError: There is no such app; the message names near matches.
            CloudNotRunning: Nothing names an address.
        """
        from apothic.remote_app import RemoteApp

        found = RemoteApp(name, _client.shared_client(client, base_url))
        found.info()
        return found

    @functools.cached_property
    def client(self) -> ControlPlaneClient:
        """The connection in use; the configured address is looked up now when none was given.

        Raises:
            CloudNotRunning: Nothing names an address.
        """
        return _client.shared_client(self._given_client)

    @property
    def deployment_id(self) -> str | None:
        """Id of the latest deploy of this object; None before the first."""
        return self._deployment_id

    @functools.cached_property
    def aio(self) -> AsyncApp:
        """The same app for asyncio."""
        return AsyncApp(self)

    def function(
        self,
        misplaced: object = None,
        /,
        *,
        schedule: Cron | Period | None = None,
        batching: BatchingSpec | None = None,
        liv: Any = None,
        gpu: str | list[str] | None = None,
        gpu_count: int | None = None,
        min_vram_gb: int | None = None,
        geolocation: str | list[str] | None = None,
        offer_filters: dict[str, dict[str, Any]] | None = None,
        max_cost_per_hour_usd: float | None = None,
        max_cost_per_tflop_hour_usd: float | None = None,
        min_total_flops: float | None = None,
        min_gpu_ram_bandwidth_gbps: float | None = None,
        min_cpu_cores: float | None = None,
        min_cpu_ram_gb: float | None = None,
        min_cpu_ghz: float | None = None,
        min_disk_bandwidth_mb_s: float | None = None,
        min_internet_upload_mbps: float | None = None,
        min_internet_download_mbps: float | None = None,
        secure_cloud_only: bool | None = None,
        cpu: int = 1,
        memory_mb: int = 1024,
        disk_gb: float | None = None,
        timeout_s: int = 600,
        queue_timeout_s: int = 86_400,
        startup_timeout_s: int = 60,
        deadline_s: int | None = None,
        disconnect_grace_s: int = 0,
        retries: int | Retries | None = None,
        max_retries: int = 0,
        at_most_once: bool = False,
        concurrent_requests: int = 1,
        max_pending_tasks: int = 100,
        max_containers: int = 1,
        tasks_per_container: int = 1,
        image: Image | None = None,
        secrets: Any = None,
        volumes: Any = None,
    ) -> FunctionDecorator:
        """Make the decorated function part of the app. Ranges are those of `FunctionOptions` and `Placement`.

        Args:
            timeout_s: Seconds one attempt may run.
            queue_timeout_s: Seconds a job may wait for a runner, each time it waits.
            startup_timeout_s: Seconds the start of a runner may take.
            deadline_s: Seconds from the call to the end of the job, over all attempts; None for no limit.
            disconnect_grace_s: Seconds for which the server may hear nothing of an attempt's machine before the attempt
                counts as lost; 0 for the cloud's.
            retries: Further attempts after a failure of the function; wins over `max_retries`.
            at_most_once: Never start a job a second time, also not when its machine is lost; excludes retries.
            image: Packages, variables and files beside the function; None for the packages that the app's files
                import, at the versions installed here.
            schedule: When it runs by itself: `Cron(...)` or `Period(...)`; it then needs a default for each parameter.
            batching: How calls are collected: `BatchingSpec(...)`; the function takes lists and returns a list then.
            liv, secrets, volumes: Not in this release; only None.

        Raises:
            InvalidRequestError: An option has the wrong type or range, or the function cannot be deployed.
            NotSupportedError: This release cannot do what an option asks for.
            ConflictError: The app has a function of this name already.
        """
        if misplaced is not None:
            raise InvalidRequestError("Write @app.function() with parentheses; options go into them by name.")
        _refuse(liv=liv, secrets=secrets, volumes=volumes)
        placement = Placement(
            gpu=gpu,
            gpu_count=gpu_count,
            min_vram_gb=min_vram_gb,
            geolocation=geolocation,
            offer_filters=offer_filters,
            max_cost_per_hour_usd=max_cost_per_hour_usd,
            max_cost_per_tflop_hour_usd=max_cost_per_tflop_hour_usd,
            min_total_flops=min_total_flops,
            min_gpu_ram_bandwidth_gbps=min_gpu_ram_bandwidth_gbps,
            min_cpu_cores=min_cpu_cores,
            min_cpu_ram_gb=min_cpu_ram_gb,
            min_cpu_ghz=min_cpu_ghz,
            min_disk_bandwidth_mb_s=min_disk_bandwidth_mb_s,
            min_internet_upload_mbps=min_internet_upload_mbps,
            min_internet_download_mbps=min_internet_download_mbps,
            secure_cloud_only=secure_cloud_only,
            disk_gb=disk_gb,
        )
        options = FunctionOptions(
            cpu=cpu,
            memory_mb=memory_mb,
            timeout_s=timeout_s,
            queue_timeout_s=queue_timeout_s,
            startup_timeout_s=startup_timeout_s,
            deadline_s=deadline_s,
            disconnect_grace_s=disconnect_grace_s,
            retries=retries_of(retries, max_retries),
            at_most_once=at_most_once,
            concurrent_requests=concurrent_requests,
            max_pending_tasks=max_pending_tasks,
            max_containers=max_containers,
            tasks_per_container=tasks_per_container,
            placement=placement,
            image=image,
            schedule=schedule,
            batching=batching,
        )
        return cast("FunctionDecorator", functools.partial(self._add, options))

    def deploy(self) -> str:
        """Upload the app's files, make them the app's live version and return the deployment's id.

        When the live version has the same files and options already, nothing changes and its id is returned.
        Says on standard error what it uploads; `APOTHIC_QUIET=1` silences that. While a runner or the CLI loads the
        file, ends the load instead.

        Raises:
            InvalidRequestError: The app has no functions (`empty_app`), no file, or files that cannot be uploaded.
            TooLargeError: The files exceed a limit.
            NotSupportedError: This is user code inside a function.
            ApothicError: The server cannot be reached or refused.
        """
        stop_if_loading()
        return self.deploy_with_details(is_quiet=not _deploy.says_uploads()).deployment.deployment_id

    def deploy_with_details(self, *, is_quiet: bool = True) -> Deployed:
        """Deploy as `deploy` does and return what was uploaded and made; works after a load, too."""
        steps = self.deploy_steps(self.client, is_quiet=is_quiet)
        return self.client.run(steps)

    def manifest(self) -> Manifest:
        """Return what a deploy would say about functions and files; reads the app's files, sends nothing.

        Raises:
            InvalidRequestError: As `deploy`.
            TooLargeError: As `deploy`.
        """
        return self.planned()[0]

    def planned(self) -> tuple[Manifest, Packed, Packages]:
        """Return all that a deploy would send; for this package's own modules. Errors as `manifest`."""
        from apothic._archive import pack

        source = self._file()
        packed = pack(source.path, added=self._added_files())
        specs, packages = _deploy.completed(self._specs(source.variable), packed)
        return _deploy.manifest_of(packed.module, source.variable, specs, packed.files), packed, packages

    def deploy_steps(
        self, client: ControlPlaneClient, *, is_quiet: bool, compares: bool = False, if_changed: bool = True
    ) -> Steps[Deployed]:
        """Return the deploy as an operation; for this package's own modules."""
        if client.endpoint.socket is not None:
            raise NotSupportedError(f"{self._name}: apps are deployed from outside, not from inside a function.")
        _deploy.manifest_of("", "", self._specs())
        source = self._file()
        specs = self._specs(source.variable)
        added, how = self._added_files(), {"is_quiet": is_quiet, "compares": compares, "if_changed": if_changed}
        done = yield from _deploy.deploy(client.core, self._name, source, specs, added, **how)
        self._deployment_id = done.deployment.deployment_id
        self._function_ids = {info.name: info.function_id for info in done.deployment.functions}
        return done

    def deployed(self, name: str) -> tuple[ControlPlaneClient, str]:
        """Return the connection and the id of a deployed function; ends a running load instead.

        Inside a function the app's live deployment is asked, once for each name.

        Raises:
            NotDeployedError: The function was not deployed by this object.
            NotFoundError: Inside a function: the app's live deployment has no such function any more.
        """
        stop_if_loading()
        if isinstance(self._includer, App):
            return self._includer.deployed(name)
        function_id = self._function_ids.get(name)
        if function_id is None and self._is_inside:
            function_id = self._function_ids[name] = self.client.get_function(self._name, name).function_id
        if function_id is None:
            raise NotDeployedError(
                f"{name} was not deployed in this process: call app.deploy() first, or look up what is deployed "
                f'with RemoteFunction.from_name("{self._name}", "{name}").'
            )
        return self.client, function_id

    @property
    def _is_inside(self) -> bool:
        """Whether this is user code of a deployed app, or a process that it started."""
        return is_in_runner() or SOCKET_VARIABLE in os.environ

    def _specs(self, variable: str = "app") -> list[FunctionSpec]:
        """Return what is deployed; a function of an included app is found as an attribute of this one."""
        return [
            function.spec if function.app is self else replace(function.spec, qualname=f"{variable}.{name}")
            for name, function in self._functions.items()
        ]

    def _added_files(self) -> dict[str, AddedFiles]:
        from apothic._placed_files import AddedFiles

        images = {name: function.options.image for name, function in self._functions.items()}
        return {name: AddedFiles(one.spec.workdir, one.local_files) for name, one in images.items() if one is not None}

    def _file(self) -> AppFile:
        return _deploy.find_app_file(self, self._module)

    def _add(self, options: FunctionOptions, python_function: Any, /) -> Function[..., Any]:
        name = _checked_name(python_function, self._module)
        self._check_free(name)
        schedule_of(options.schedule, python_function)
        batching_of(options.batching, python_function)
        is_async = inspect.iscoroutinefunction(python_function)
        make = AsyncFunction[..., Any] if is_async else Function[..., Any]
        function: Function[..., Any] = make(
            self, python_function, name, options, is_async=is_async or inspect.isasyncgenfunction(python_function)
        )
        self._functions[name] = function
        return function


class AsyncApp:
    """`App` for asyncio."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def deploy(self) -> str:
        """Upload the app's files, make them the app's live version and return the deployment's id."""
        stop_if_loading()
        client = self._app.client
        done = await client.aio.run(self._app.deploy_steps(client, is_quiet=not _deploy.says_uploads()))
        return done.deployment.deployment_id


def _caller_module(frame: Any) -> str:
    """Return the name of the module that makes an app."""
    outer = frame.f_back if frame is not None else None
    return str(outer.f_globals.get("__name__", "")) if outer is not None else ""


def _refuse(**options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise NotSupportedError(f"{name}: this release cannot do that yet; leave the option out.")


def _checked_name(python_function: Any, module: str) -> str:
    """Return the name of a function that runners can find and run."""
    if not isinstance(python_function, FunctionType):
        raise wrong("@app.function()", python_function, "put above a function written with def or async def")
    name, qualname = python_function.__name__, python_function.__qualname__
    if "<locals>" in qualname or "<lambda>" in qualname:
        raise InvalidRequestError(
            f"{qualname} is a lambda or lies inside another function, where runners cannot find it; "
            "write it at the top level of the file."
        )
    if "." in qualname and "self" in python_function.__code__.co_varnames[:1]:
        raise InvalidRequestError(
            f"{qualname} is a method, which needs an object that runners do not have; "
            "write it at the top level of the file and pass what it needs."
        )
    if not is_function_name(name):
        raise wrong("function name", name, FUNCTION_NAME_RULE)
    if python_function.__module__ != module:
        file = Path(python_function.__code__.co_filename).name
        raise InvalidRequestError(
            f"{name} is defined in {file}, not in the file of the app; move it or call it from there."
        )
    return name
