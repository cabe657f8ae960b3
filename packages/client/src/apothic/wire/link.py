"""Worker link protocol, without I/O. The prose is `docs/reference/worker-link.md`; this module is its vocabulary.

A frame is one binary WebSocket message holding a msgpack map from message name to a list of items, so that a sender
coalesces everything of one loop tick into one message. Names a reader does not know are an error, never ignored: both
sides agreed on `LINK_PROTOCOL` in `hello`. Inside one frame the receiver acts in the order in which the fields of
`ServerFrame` and `WorkerFrame` are declared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

from apothic.wire.functions import BatchSpec
from apothic.wire.images import BuildLines, ImageSpec, ImagesTidied, Prepared, PrepareImage, TidyImages
from apothic.wire.lines import LogLine as LogLine
from apothic.wire.maps import ChunkOrder as ChunkOrder
from apothic.wire.maps import ChunkResult as ChunkResult
from apothic.wire.maps import ItemOutput as ItemOutput
from apothic.wire.maps import TakeBack as TakeBack
from apothic.wire.records import record
from apothic.wire.values import RemoteError, Value


@dataclass(frozen=True)
class Machine:
    """What a worker offers and what it can enforce; reported honestly, shown by the API (G19.6).

    Attributes:
        host: Host name, for people.
        executor: `sandbox` or `process`.
        isolation: The parts really applied, for example `["user", "mount", "pid", "ipc", "uts"]`; empty for `process`.
        enforced: Limits really enforced: any of `cpu`, `memory`, `pids`.
        not_enforced: Limit name to the reason why not.
        cpus: Processors offered.
        memory_mb: MiB offered.
        pythons: `major.minor` of the interpreters that runners can use.
    """

    host: str
    executor: str
    isolation: list[str]
    enforced: list[str]
    not_enforced: dict[str, str]
    cpus: float
    memory_mb: int
    pythons: list[str]


@record
class AttemptRef:
    """Names one grant: the job and the fence it was granted with."""

    job: str
    fence: int


@dataclass(frozen=True)
class HeldAttempt:
    """An attempt that a worker still has when it dials in: the grant, and the runner that got it, alive or not."""

    job: str
    fence: int
    runner: str


@dataclass(frozen=True)
class RunnerRef:
    """A runner that lives or starts; `function` is the function's name, `tasks` what `StartRunner.places` says."""

    runner: str
    org: str
    deployment: str
    function: str
    cpu: int
    memory_mb: int
    tasks: int


@dataclass(frozen=True)
class Hello:
    """First frame of a worker.

    Attributes:
        held: The attempts it still executes or has not seen settled.
        forerunners: Earlier starts of this worker that are dead for certain, with all user code they had.
    """

    protocol: int
    version: str
    incarnation: str
    name: str
    machine: Machine
    credits: int
    held: list[HeldAttempt] = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType]
    runners: list[RunnerRef] = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType]
    forerunners: list[str] = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType]


@dataclass(frozen=True)
class Heartbeat:
    """Renews the worker's lease.

    Attributes:
        sent_at_ms: The worker's CLOCK_BOOTTIME; comes back unchanged.
        echo: Number of the newest `Ping` of this link that reached the supervisor; 0 before the first.
    """

    sent_at_ms: int
    held: list[AttemptRef]
    echo: int = 0


@dataclass(frozen=True)
class Draining:
    """The worker stops: it takes nothing more and ends what still runs after `finish_s` seconds."""

    finish_s: float


@record
class Started:
    """J3: the attempt's call was handed to user code."""

    job: str
    fence: int


@record
class Logs:
    """Lines of one attempt, in order; kept by the worker until `LogsTaken`, and sent again on a new link.

    Lines sent before a `Finished` of the same attempt belong before it.

    Attributes:
        first_number: Number of the first line; the first of an attempt has 0.
    """

    job: str
    fence: int
    first_number: int
    lines: list[LogLine]


@dataclass(frozen=True)
class Items:
    """Items that an attempt yielded, in order; kept by the worker until `ItemsTaken`, and sent again on a new link.

    Attributes:
        first_ordinal: Ordinal of the first item; the first of an attempt has 0.
        count: Items in `data`, at least 1.
        encoding: `json` or `pickle`, of all of them.
        data: Packed as `apothic.wire.items` says; at most `ITEM_BATCH_MAX` bytes.
        python: As `Value.python`, for all of them.
    """

    job: str
    fence: int
    first_ordinal: int
    count: int
    encoding: str
    data: bytes
    python: str | None = None


@record
class Finished:
    """The attempt ended on this worker and nothing of it runs any more.

    An attempt whose `Assign.items` has several items always ends with `items`. It has `succeeded` when nothing stopped
    it from outside, whatever became of its items, and also when it gives the rest back (`done` is less than what was
    assigned): because of `TakeBack`, of a drain, or because its outcomes or its output grew large.

    Attributes:
        outcome: `succeeded`, `failed`, `timed_out`, `cancelled`, or `lost` (ended through no fault of user code, for
            example drained or a runner that died beside it; counts against the infrastructure budget).
        value: The result when succeeded.
        error: What went wrong otherwise; None for `cancelled`.
        ran_ms: Milliseconds between `Started` and the end; 0 when user code was never reached.
        never_started: With `lost`: the call was not handed to the runner's process, and never will be.
        items: What became of the items of a chunk that had several; of one item, `value` and `error` tell.
    """

    job: str
    fence: int
    outcome: str
    value: Value | None = None
    error: RemoteError | None = None
    ran_ms: int = 0
    never_started: bool = False
    items: ChunkResult | None = None


@dataclass(frozen=True)
class RunnerEnded:
    """A runner is gone with everything it started. Each attempt it held was reported by `Finished` before."""

    runner: str
    reason: str


class WorkerFrame(TypedDict, total=False):
    """Worker to server, in acting order."""

    hello: list[Hello]
    heartbeat: list[Heartbeat]
    draining: list[Draining]
    started: list[Started]
    logs: list[Logs]
    items: list[Items]
    finished: list[Finished]
    runner_ended: list[RunnerEnded]
    build_lines: list[BuildLines]
    prepared: list[Prepared]
    images_tidied: list[ImagesTidied]


@dataclass(frozen=True)
class Welcome:
    """Answer to `hello`.

    Attributes:
        heartbeat_s: Seconds between heartbeats.
        grace_s: Lease length; see G3.2.
        unknown: Attempts of `held` that the server does not know under this fence: stop them, report nothing.
        unknown_runners: Runners the server does not know: end them.
        servers: Addresses of the live servers of the cloud; which one dispatches may change.
        attempt_key: Key under which the tokens of this incarnation's attempts are derived; see `wire.tokens`.
    """

    worker: str
    heartbeat_s: float
    grace_s: float
    term: int
    unknown: list[AttemptRef] = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType]
    unknown_runners: list[str] = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType]
    servers: list[str] = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType]
    attempt_key: str = field(default="", repr=False)


@dataclass(frozen=True)
class HeartbeatAnswer:
    """The lease was renewed; `unknown` and `servers` as in `Welcome`."""

    sent_at_ms: int
    unknown: list[AttemptRef]
    servers: list[str] = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType]


@dataclass(frozen=True)
class StartRunner:
    """Start a runner for one function of one deployment; `Assign`s for it may follow in the same frame.

    Attributes:
        org: Isolation boundary: zygotes, caches and sandboxes are never shared between orgs.
        archive: SHA-256 of the deployment's archive in hex; fetched from `/v1/link/archives/{deployment}` when absent.
        module: Module to import; `qualname` is looked up in it.
        python: `major.minor` that the archive was deployed from.
        startup_timeout_s: Bound from this order until the runner takes calls.
        disconnect_grace_s: As in `FunctionSpec`; see `wire.lease`.
        image: Packages, variables and files beside the code; None for the bare interpreter.
        batching: How the worker collects calls; None when each is executed by itself. `tasks` is 1 with it.
    """

    runner: str
    org: str
    app: str
    deployment: str
    archive: str
    module: str
    app_variable: str
    function: str
    qualname: str
    python: str
    cpu: int
    memory_mb: int
    tasks: int
    is_async: bool
    startup_timeout_s: int
    disconnect_grace_s: int = 0
    image: ImageSpec | None = None
    batching: BatchSpec | None = None

    @property
    def places(self) -> int:
        """Attempts that it holds at once, as `FunctionSpec.places`."""
        return self.tasks if self.batching is None else self.batching.max_batch_size


@record
class Assign:
    """J2: execute this attempt in that runner.

    Attributes:
        timeout_s: Bound from `Started` to the end; of several items, of each from the end of the one before.
        deadline_left_s: Bound from this order to the end; None without one.
        items: The items that `arguments` (encoding `items`: packed as `apothic.wire.chunks` says) holds; None when it
            is a single call.
    """

    runner: str
    job: str
    fence: int
    attempt: int
    timeout_s: int
    arguments: Value
    deadline_left_s: float | None = None
    items: ChunkOrder | None = None


@dataclass(frozen=True)
class Cancel:
    """Stop the attempt: TERM to its tree, KILL after `grace_s`, then report `Finished(outcome="cancelled")`."""

    job: str
    fence: int
    grace_s: float


@dataclass(frozen=True)
class StopRunner:
    """End an idle runner; sent only when the server counts no attempt in it."""

    runner: str


@dataclass(frozen=True)
class Lent:
    """All that a runner executes waits for other jobs, so its processors are lent: what it computes comes last.

    Attributes:
        is_lent: False when it goes on as any other. So do all runners after `Welcome`.
    """

    runner: str
    is_lent: bool


@record
class Settled:
    """The `Finished` of this attempt is on disk or was refused as stale: forget it."""

    job: str
    fence: int


@dataclass(frozen=True)
class Ping:
    """Asks whether what is sent here still reaches those who carry it out; heartbeats echo the number (G3.4)."""

    number: int


@dataclass(frozen=True)
class ItemsTaken:
    """The attempt's items below the ordinal `upto` are on disk, and the generator may go on beyond them."""

    job: str
    fence: int
    upto: int


@dataclass(frozen=True)
class LogsTaken:
    """The attempt's lines below the number `upto` are on disk."""

    job: str
    fence: int
    upto: int


@dataclass(frozen=True)
class Refused:
    """The link is refused; the server closes after this frame. `code` is stable, `detail` is for people."""

    code: str
    detail: str
    url: str | None = None


class ServerFrame(TypedDict, total=False):
    """Server to worker, in acting order."""

    refused: list[Refused]
    welcome: list[Welcome]
    heartbeat_answer: list[HeartbeatAnswer]
    settled: list[Settled]
    logs_taken: list[LogsTaken]
    items_taken: list[ItemsTaken]
    cancel: list[Cancel]
    take_back: list[TakeBack]
    lent: list[Lent]
    stop_runner: list[StopRunner]
    prepare_image: list[PrepareImage]
    tidy_images: list[TidyImages]
    start_runner: list[StartRunner]
    assign: list[Assign]
    ping: list[Ping]
