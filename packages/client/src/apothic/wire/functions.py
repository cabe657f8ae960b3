"""What a deploy says about its functions: the manifest, shared by SDK, server and worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from apothic.wire.images import ImageSpec
from apothic.wire.limits import QUEUE_TIMEOUT_S_DEFAULT, STARTUP_TIMEOUT_S_DEFAULT
from apothic.wire.schedules import ScheduleSpec

KINDS = ("function",)
"""Kinds that this release deploys."""


@dataclass(frozen=True)
class BatchSpec:
    """Calls of the function are collected, and it is called once for all of a batch, with lists.

    Attributes:
        max_batch_size: Calls of one batch, 1 to `BATCH_SIZE_MAX`.
        wait_ms: How long the first call of a batch waits for others, 0 to `BATCH_WAIT_MS_MAX`.
    """

    max_batch_size: int
    wait_ms: int = 0


@dataclass(frozen=True)
class FunctionSpec:
    """One function of a deployment. Bounds are in `apothic.wire.limits`.

    Attributes:
        name: Key in the app, a Python identifier.
        kind: One of `KINDS`.
        qualname: Name to look up in the entry module; dots walk into classes.
        cpu: Whole processors one runner may use.
        memory_mb: Memory one runner may use, in MiB.
        timeout_s: Seconds one attempt may run.
        queue_timeout_s: Seconds a job may wait for a runner, each time it waits; delays before retries do not count.
        startup_timeout_s: Seconds the start of a runner may take, app loaded.
        deadline_s: Seconds from the call to the end of the job, over all attempts; None for no limit.
        disconnect_grace_s: Seconds for which nothing may be heard of an attempt's worker before the attempt is given to
            another one; 0 for the cloud's. At least three heartbeats.
        max_retries: Further attempts after a failure of user code.
        retry_initial_delay_s: Delay before the first retry (G2.4).
        retry_backoff_coefficient: Factor from one retry to the next, 1 to 10.
        retry_max_delay_s: Longest delay between attempts.
        at_most_once: An attempt is never followed by another; excludes `max_retries`.
        max_containers: Runners of this function at once.
        tasks_per_container: Jobs one runner executes at once.
        concurrent_requests: Requests one runner serves at once; for services only.
        max_pending_tasks: Single calls that may wait for a runner.
        is_async: The function is `async def`.
        is_generator: The function yields items; its jobs have them in their streams.
        placement: Named placement fields and `offer_filters` as given; empty when none. Work with placement that no
            machine meets waits, with the reason.
        image: Packages, variables and files beside the function; None for the bare interpreter.
        schedule: When it runs by itself; None when only calls run it.
        batching: How calls are collected; None when each is executed by itself. Excludes generators,
            `tasks_per_container` and `concurrent_requests`.
    """

    name: str
    kind: str = "function"
    qualname: str = ""
    cpu: int = 1
    memory_mb: int = 1024
    timeout_s: int = 600
    queue_timeout_s: int = QUEUE_TIMEOUT_S_DEFAULT
    startup_timeout_s: int = STARTUP_TIMEOUT_S_DEFAULT
    deadline_s: int | None = None
    disconnect_grace_s: int = 0
    max_retries: int = 0
    retry_initial_delay_s: float = 1.0
    retry_backoff_coefficient: float = 2.0
    retry_max_delay_s: float = 60.0
    at_most_once: bool = False
    max_containers: int = 1
    tasks_per_container: int = 1
    concurrent_requests: int = 1
    max_pending_tasks: int = 100
    is_async: bool = False
    is_generator: bool = False
    placement: dict[str, Any] = field(default_factory=dict)  # pyright: ignore[reportUnknownVariableType]
    image: ImageSpec | None = None
    schedule: ScheduleSpec | None = None
    batching: BatchSpec | None = None

    @property
    def places(self) -> int:
        """Jobs that one runner holds at once: those of one batch, or those that it executes side by side."""
        return self.tasks_per_container if self.batching is None else self.batching.max_batch_size


@dataclass(frozen=True)
class Manifest:
    """Everything a deployment is besides its files.

    Attributes:
        module: Dotted name under which a runner imports the app's file.
        app_variable: Module attribute that holds the `App`.
        python: `major.minor` of the deploying interpreter.
        client_version: Version of the deploying SDK.
        functions: At least one.
        files: Digest (SHA-256 in hex) of each file of the archive by its path there, so that two deployments can be
            compared; empty when there are more than `MANIFEST_FILES_MAX`.
        file_sizes: Bytes of each of `files`, in the order of their sorted paths, so that a later deploy can send what
            changed alone; empty when they are not told.
    """

    module: str
    app_variable: str
    python: str
    client_version: str
    functions: tuple[FunctionSpec, ...] = ()
    files: dict[str, str] = field(default_factory=dict)  # pyright: ignore[reportUnknownVariableType]
    file_sizes: tuple[int, ...] = ()
