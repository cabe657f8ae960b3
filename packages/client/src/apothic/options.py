"""How a function runs: size, retries, concurrency. Values are checked where they are written, by the decorator."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from apothic._ranges import flag, number, whole, wrong
from apothic.errors import InvalidRequestError
from apothic.image import Image
from apothic.placement import Placement
from apothic.schedules import Cron, Period
from apothic.wire.functions import BatchSpec, FunctionSpec
from apothic.wire.limits import (
    BATCH_SIZE_MAX,
    BATCH_WAIT_MS_MAX,
    CONTAINERS_MAX,
    CPU_MAX,
    DISCONNECT_GRACE_S_MAX,
    MEMORY_MB_MAX,
    MEMORY_MB_MIN,
    PENDING_PER_FUNCTION_DEFAULT,
    QUEUE_TIMEOUT_S_DEFAULT,
    QUEUED_JOBS_PER_ORG_MAX,
    RETRIES_MAX,
    STARTUP_TIMEOUT_S_DEFAULT,
    TASKS_PER_CONTAINER_MAX,
    TIMEOUT_S_MAX,
)

RETRY_DELAY_S_MAX = 86_400


@dataclass(frozen=True, kw_only=True)
class Retries:
    """Further attempts after a failure of user code.

    The delay before retry n is `initial_delay * backoff_coefficient ** (n - 1)`, at least 1 s and at most `max_delay`,
    and up to 10 % longer.

    Attributes:
        max_retries: Further attempts, 0 to 100.
        backoff_coefficient: 1 to 10.
        initial_delay: Seconds, 0 to 86,400.
        max_delay: Seconds, 1 to 86,400.
    """

    max_retries: int
    backoff_coefficient: float = 2.0
    initial_delay: float = 1.0
    max_delay: float = 60.0

    def __post_init__(self) -> None:
        whole("max_retries", self.max_retries, 0, RETRIES_MAX)
        number("backoff_coefficient", self.backoff_coefficient, 1, 10)
        number("initial_delay", self.initial_delay, 0, RETRY_DELAY_S_MAX)
        number("max_delay", self.max_delay, 1, RETRY_DELAY_S_MAX)


@dataclass(frozen=True, kw_only=True)
class ConcurrencySpec:
    """How many calls of one function run and wait at once; a read-only view of its options."""

    concurrent_requests: int
    max_pending_tasks: int
    max_containers: int
    tasks_per_container: int


@dataclass(frozen=True)
class BatchingSpec:
    """Calls are collected, and the function is called once for all of them: with a list for each argument.

    It returns a list with one result for each call, in the same order; an exception in the place of a result fails that
    call alone. A batch begins when it is full, or when its first call has waited for `wait_ms`.

    Attributes:
        max_batch_size: Calls of one batch, 1 to 1,000.
        wait_ms: Milliseconds that the first call of a batch waits for others, 0 to 600,000; with 0 those are taken
            together that are there at once, as after a batch that took some time.
    """

    max_batch_size: int
    wait_ms: int = 0

    def __post_init__(self) -> None:
        whole("max_batch_size", self.max_batch_size, 1, BATCH_SIZE_MAX)
        whole("wait_ms", self.wait_ms, 0, BATCH_WAIT_MS_MAX)


@dataclass(frozen=True, kw_only=True)
class FunctionOptions:
    """Everything that `@app.function(...)` was given, with defaults filled in.

    Attributes:
        cpu: Whole processors one runner may use, 1 to 1,024.
        memory_mb: Memory of one runner in MiB, 32 to 16,777,216.
        timeout_s: Seconds one attempt may run, 1 to 604,800.
        queue_timeout_s: Seconds a job may wait for a runner, each time it waits, 1 to 604,800; delays before retries do
            not count.
        startup_timeout_s: Seconds the start of a runner may take, 1 to 604,800.
        deadline_s: Seconds from the call to the end of the job, over all attempts, 1 to 604,800; None for no limit.
        disconnect_grace_s: Seconds for which the server may hear nothing of the machine that executes an attempt before
            the attempt counts as lost, up to 86,400; 0 for the cloud's own number (30 unless it was set). The server
            refuses less than three heartbeats (30, or the cloud's number when that is less).
        retries: Further attempts after a failure of user code; None for none.
        at_most_once: A job gets one attempt only, also when its machine is lost; excludes `retries`.
        concurrent_requests: Requests one runner serves at once, 1 to 1,000; for services.
        max_pending_tasks: Single calls that may wait for a runner, 1 to 1,000,000.
        max_containers: Runners at once, 1 to 10,000.
        tasks_per_container: Jobs one runner executes at once, 1 to 1,000.
        placement: Which machines will do.
        image: Packages, variables and files beside the function; None for the packages that the app's files import, at
            the versions installed where it is deployed.
        schedule: When it runs by itself; None when only calls run it.
        batching: How calls are collected to be executed together, one batch at a time in each runner; None when each is
            executed by itself. Excludes a schedule, and `tasks_per_container` and `concurrent_requests` above 1.
    """

    cpu: int = 1
    memory_mb: int = 1024
    timeout_s: int = 600
    queue_timeout_s: int = QUEUE_TIMEOUT_S_DEFAULT
    startup_timeout_s: int = STARTUP_TIMEOUT_S_DEFAULT
    deadline_s: int | None = None
    disconnect_grace_s: int = 0
    retries: Retries | None = None
    at_most_once: bool = False
    concurrent_requests: int = 1
    max_pending_tasks: int = PENDING_PER_FUNCTION_DEFAULT
    max_containers: int = 1
    tasks_per_container: int = 1
    placement: Placement = field(default_factory=Placement)
    image: Image | None = None
    schedule: Cron | Period | None = None
    batching: BatchingSpec | None = None

    def __post_init__(self) -> None:
        whole("cpu", self.cpu, 1, CPU_MAX)
        whole("memory_mb", self.memory_mb, MEMORY_MB_MIN, MEMORY_MB_MAX)
        whole("timeout_s", self.timeout_s, 1, TIMEOUT_S_MAX)
        whole("queue_timeout_s", self.queue_timeout_s, 1, TIMEOUT_S_MAX)
        whole("startup_timeout_s", self.startup_timeout_s, 1, TIMEOUT_S_MAX)
        if self.deadline_s is not None:
            whole("deadline_s", self.deadline_s, 1, TIMEOUT_S_MAX)
        whole("disconnect_grace_s", self.disconnect_grace_s, 0, DISCONNECT_GRACE_S_MAX)
        whole("concurrent_requests", self.concurrent_requests, 1, TASKS_PER_CONTAINER_MAX)
        whole("max_pending_tasks", self.max_pending_tasks, 1, QUEUED_JOBS_PER_ORG_MAX)
        whole("max_containers", self.max_containers, 1, CONTAINERS_MAX)
        whole("tasks_per_container", self.tasks_per_container, 1, TASKS_PER_CONTAINER_MAX)
        if self.image is not None and not isinstance(self.image, Image):  # pyright: ignore[reportUnnecessaryIsInstance] - users may err
            raise wrong("image", self.image, "an Image, such as Image.debian_slim().pip_install('numpy')")
        if flag("at_most_once", self.at_most_once) and self.retries is not None and self.retries.max_retries:
            raise InvalidRequestError(
                "at_most_once and retries exclude each other: a function that may run at most once is never tried "
                "again. Leave one of them out."
            )
        if self.batching is not None:
            self._check_batching(self.batching)

    def _check_batching(self, batching: Any) -> None:
        if not isinstance(batching, BatchingSpec):
            raise wrong("batching", batching, "a BatchingSpec, such as BatchingSpec(max_batch_size=32, wait_ms=50)")
        if self.schedule is not None:
            raise InvalidRequestError(
                "batching and schedule exclude each other: scheduled runs pass no arguments. Schedule another function "
                "that calls this one."
            )
        for name in ("tasks_per_container", "concurrent_requests"):
            if getattr(self, name) > 1:
                raise InvalidRequestError(
                    f"batching and {name} exclude each other: a runner executes one batch at a time. Leave {name} "
                    "out, or raise max_containers for more batches at once."
                )

    @property
    def concurrency(self) -> ConcurrencySpec:
        """The four bounds on calls at once."""
        return ConcurrencySpec(
            concurrent_requests=self.concurrent_requests,
            max_pending_tasks=self.max_pending_tasks,
            max_containers=self.max_containers,
            tasks_per_container=self.tasks_per_container,
        )

    def spec(self, name: str, qualname: str, *, is_async: bool, is_generator: bool = False) -> FunctionSpec:
        """Return what a deploy says about the function."""
        retries = self.retries or Retries(max_retries=0)
        return FunctionSpec(
            name=name,
            qualname=qualname,
            cpu=self.cpu,
            memory_mb=self.memory_mb,
            timeout_s=self.timeout_s,
            queue_timeout_s=self.queue_timeout_s,
            startup_timeout_s=self.startup_timeout_s,
            deadline_s=self.deadline_s,
            disconnect_grace_s=self.disconnect_grace_s,
            max_retries=retries.max_retries,
            retry_initial_delay_s=float(retries.initial_delay),
            retry_backoff_coefficient=float(retries.backoff_coefficient),
            retry_max_delay_s=float(retries.max_delay),
            at_most_once=self.at_most_once,
            max_containers=self.max_containers,
            tasks_per_container=self.tasks_per_container,
            concurrent_requests=self.concurrent_requests,
            max_pending_tasks=self.max_pending_tasks,
            is_async=is_async,
            is_generator=is_generator,
            placement=self.placement.as_dict(),
            image=None if self.image is None else self.image.spec,
            schedule=None if self.schedule is None else self.schedule.spec(),
            batching=None if self.batching is None else BatchSpec(self.batching.max_batch_size, self.batching.wait_ms),
        )


def retries_of(retries: Any, max_retries: Any) -> Retries | None:
    """Return the retries of a decorator; `retries` wins over the older `max_retries`."""
    whole("max_retries", max_retries, 0, RETRIES_MAX)
    if retries is None:
        return Retries(max_retries=max_retries) if max_retries else None
    if isinstance(retries, Retries):
        return retries
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise wrong("retries", retries, f"a whole number from 0 to {RETRIES_MAX} or Retries(...)")
    return Retries(max_retries=whole("retries", retries, 0, RETRIES_MAX))


def retries_of_spec(spec: FunctionSpec) -> Retries | None:
    """Return the retries of a deployed function, None for none."""
    if not spec.max_retries:
        return None
    return Retries(
        max_retries=spec.max_retries,
        backoff_coefficient=spec.retry_backoff_coefficient,
        initial_delay=spec.retry_initial_delay_s,
        max_delay=max(1.0, spec.retry_max_delay_s),
    )


def batching_of(batching: BatchingSpec | None, python_function: Callable[..., Any]) -> None:
    """Check that a function can be called with lists.

    Raises:
        InvalidRequestError: It yields items, or has no parameter.
    """
    if batching is None:
        return
    name = python_function.__name__
    if inspect.isgeneratorfunction(python_function) or inspect.isasyncgenfunction(python_function):
        raise InvalidRequestError(
            f"{name} yields items and has batching, which exclude each other: return a list with a result for each "
            "call, or leave batching out."
        )
    if not inspect.signature(python_function).parameters:
        raise InvalidRequestError(f"{name} has batching and no parameter: it is called with a list for each argument.")


def batching_of_spec(spec: FunctionSpec) -> BatchingSpec | None:
    """Return how calls of a deployed function are collected, None when each is executed by itself."""
    return None if spec.batching is None else BatchingSpec(spec.batching.max_batch_size, spec.batching.wait_ms)
