"""What editors infer for calls; checked by basedpyright in strict mode, never executed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from apothic import (
    App,
    ControlPlaneClient,
    Deployment,
    Job,
    JobGroup,
    JobLogEvent,
    JobStreamCheckpoint,
    JobStreamEvent,
    RemoteFunction,
)

if TYPE_CHECKING:
    from typing import assert_type

    app = App("typing", client=ControlPlaneClient())

    @app.function(cpu=1, memory_mb=512, timeout_s=60)
    def greet(name: str, *, loud: bool = False) -> str:
        """Return a text."""
        return name.upper() if loud else name

    @app.function()
    async def measure(name: str) -> int:
        """Return a number, asynchronously."""
        return len(name)

    assert_type(greet("x"), str)
    assert_type(greet.local("x", loud=True), str)
    assert_type(greet.remote("x"), str)
    assert_type(greet.spawn("x"), Job[str])
    assert_type(greet.spawn("x").wait(), str)
    greet.remote(1)  # pyright: ignore[reportArgumentType]
    greet.remote("x", quiet=True)  # pyright: ignore[reportCallIssue]
    greet.spawn()  # pyright: ignore[reportCallIssue]

    assert_type(greet.map(["x"]), list[str])
    assert_type(greet.starmap([("x",)], errors="drop", stop_after=3, key="k", timeout_s=5.0), list[str])
    assert_type(greet.map_unordered(iter("xy")), Generator[tuple[int, str], None, None])
    assert_type(greet.spawn_map(["x"])[0].wait(), str)
    assert_type(greet.spawn_map(["x"]).group, JobGroup[str])
    assert_type(greet.spawn_map(["x"]).group.results(), list[str])
    greet.map(1)  # pyright: ignore[reportArgumentType]
    greet.map(["x"], errors=1)  # pyright: ignore[reportArgumentType]

    coroutine = assert_type(measure("x"), Coroutine[Any, Any, int])
    assert_type(measure.remote("x"), int)
    assert_type(measure.spawn("x").wait(), int)
    measure.remote(1)  # pyright: ignore[reportArgumentType]

    assert_type(app.deploy(), str)
    assert_type(app.functions["greet"].remote("x"), Any)
    remote = RemoteFunction.from_name("typing", "greet")
    assert_type(remote.remote("x", timeout_s=5.0), Any)
    assert_type(remote.spawn("x"), Job[Any])
    assert_type(remote.map(["x"], timeout_s=5.0), list[Any])
    reattached: Job[str] = Job("jobs:x", app.client)
    assert_type(reattached.wait(), str)
    anything = Job("jobs:x", app.client)
    assert_type(anything.wait(), Any)

    assert_type(anything.watch(snapshot=True, event_types=["job.log"]), Generator[JobStreamEvent, None, None])
    assert_type(anything.stream_events(last_index=3), Generator[JobStreamEvent, None, None])
    assert_type(anything.checkpoint(last_index=3), JobStreamCheckpoint)
    assert_type(greet.remote_events("x", snapshot=True), Generator[JobStreamEvent, None, None])
    assert_type(remote.remote_events("x", event_types=("job.end",)), Generator[JobStreamEvent, None, None])
    for event in anything.watch():
        if isinstance(event, JobLogEvent):
            assert_type(event.line, str)
    anything.stream_events(snapshot=True)  # pyright: ignore[reportCallIssue]
    anything.watch(cursor=3)  # pyright: ignore[reportArgumentType]

    async def asynchronous() -> None:
        """Await the same calls."""
        assert_type(anything.aio.watch(snapshot=True), AsyncGenerator[JobStreamEvent, None])
        assert_type(anything.aio.stream_events(last_index=3), AsyncGenerator[JobStreamEvent, None])
        assert_type(greet.aio.remote_events("x"), AsyncGenerator[JobStreamEvent, None])
        assert_type(remote.aio.remote_events("x"), AsyncGenerator[JobStreamEvent, None])
        assert_type(await greet.aio.remote("x"), str)
        assert_type(await measure.aio.remote("x"), int)
        assert_type(await greet.aio.spawn("x"), Job[str])
        assert_type(await greet.aio.map(["x"]), list[str])
        assert_type(greet.aio.map_unordered(["x"]), AsyncGenerator[tuple[int, str], None])
        assert_type((await measure.aio.spawn_map(["x"])).group, JobGroup[int])
        assert_type(await (await greet.aio.spawn("x")).aio.wait(), str)
        assert_type(await app.aio.deploy(), str)
        assert_type(await remote.aio.remote("x"), Any)
        deployed = await App.lookup("typing").aio.deployment()
        assert_type(deployed, Deployment)
        assert_type(await deployed.aio.stop(now=True), int)
