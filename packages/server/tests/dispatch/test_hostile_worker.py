"""A worker that says anything at all: it loses its link, and nothing else happens."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
import pytest

from apothic.wire.ids import new_key
from apothic.wire.link import Finished, LogLine, Logs, LogsTaken, RunnerEnded
from apothic.wire.values import RemoteError, Value
from apothic.wire.version import LINK_PROTOCOL, VERSION
from apothic_server.api.links.session import REFUSED, Session
from apothic_server.domain.access import Actor, Role
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ARCHIVE, CloudUnderTest, ScriptedWorker, ended

pytestmark = pytest.mark.anyio


def hello(**changes: Any) -> dict[str, Any]:
    """A good hello but for the changes."""
    machine = {
        "host": "h", "executor": "sandbox", "isolation": [], "enforced": [], "not_enforced": {}, "cpus": 1.0,
        "memory_mb": 512, "pythons": ["3.11"], **changes.pop("machine", {}),
    }  # fmt: skip
    incarnation = new_key()
    good = {"protocol": LINK_PROTOCOL, "version": VERSION, "incarnation": incarnation, "name": "n", "machine": machine}
    return {**good, "credits": 1, **changes}


class Said:
    """Carries a session; keeps what the server says."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.is_paused = False
        self.changed = asyncio.Event()

    def write(self, message: bytes) -> None:
        self.answers.append(msgspec.msgpack.decode(message))
        self.changed.set()

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        self.changed.set()


async def speak(cloud: CloudUnderTest, actor: Actor, *messages: bytes) -> tuple[int, list[dict[str, Any]]]:
    """Send messages over a link, one after the other, then hang up; returns the close code and what was answered."""
    said = Said()
    session = Session(cloud.inner.links, actor, said)

    async def talk() -> None:
        for message in messages:
            session.receive(message)
            while said.is_paused:
                said.changed.clear()
                await said.changed.wait()

    async with asyncio.timeout(10):
        code = await session.run(talk())
    return code, said.answers


def deep_causes(depth: int) -> dict[str, Any]:
    error: dict[str, Any] = {"type": "a", "message": "b"}
    for _ in range(depth):
        error = {"type": "a", "message": "b", "causes": [error]}
    return error


encode = msgspec.msgpack.encode
FIRST = {
    "nothing": b"",
    "noise": bytes(range(256)),
    "another type": encode([1, 2, 3]),
    "no hello": encode({"heartbeat": [{"sent_at_ms": 1, "held": []}]}),
    "two hellos": encode({"hello": [hello(), hello()]}),
    "an unknown name": encode({"hello": [hello()], "dance": []}),
    "text that is no UTF-8": encode({"hello": [hello(name="XX")]}).replace(b"XX", b"\xff\xfe"),
    "deep nesting": b"\x91" * 100_000,
    "a list longer than the message": b"\x81\xa5hello\xdd\xff\xff\xff\xff",
    "a wrong type": encode({"hello": [hello(credits="many")]}),
    "no credits": encode({"hello": [hello(credits=-1)]}),
    "too many credits": encode({"hello": [hello(credits=2**63)]}),
    "a name with a NUL": encode({"hello": [hello(name="a\0")]}),
    "a host with a NUL": encode({"hello": [hello(machine={"host": "\0"})]}),
    "a reason with a NUL": encode({"hello": [hello(machine={"not_enforced": {"\0": "\0"}})]}),
    "no number of processors": encode({"hello": [hello(machine={"cpus": math.nan})]}),
    "endless processors": encode({"hello": [hello(machine={"cpus": math.inf})]}),
    "too much memory": encode({"hello": [hello(machine={"memory_mb": 2**63})]}),
    "another protocol": encode({"hello": [hello(protocol=-7)]}),
    "an incarnation that is no key": encode({"hello": [hello(incarnation="../../x")]}),
}


@pytest.mark.parametrize("message", FIRST.values(), ids=FIRST.keys())
async def test_a_first_message_that_is_no_good_hello_ends_the_link(cloud, message):
    code, answers = await speak(cloud, cloud.worker_actor, message)

    assert code in (1007, 1008)
    assert not any("welcome" in answer for answer in answers)
    assert cloud.inner.board.fleet.workers == {}


NEXT = {
    "noise": b"\xc1",
    "deep nesting": b"\x91" * 100_000,
    "an unknown name": encode({"dance": []}),
    "a wrong type": encode({"started": [{"job": 7, "fence": 1}]}),
}


@pytest.mark.parametrize("message", NEXT.values(), ids=NEXT.keys())
async def test_a_later_message_that_is_none_ends_the_link(cloud, message):
    code, answers = await speak(cloud, cloud.worker_actor, encode({"hello": [hello()]}), message)

    assert code == 1007
    assert "welcome" in answers[0]


async def test_reports_about_what_a_worker_does_not_hold_change_nothing(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    submitted = await cloud.spawn()
    assign = await worker.take()
    lies: list[dict[str, Any]] = [
        {"finished": [{"job": assign.job, "fence": fence, "outcome": "succeeded"}]}
        for fence in (assign.fence, assign.fence + 1, -1, 0, 2**63)
    ]
    lies += [
        {"started": [{"job": assign.job, "fence": assign.fence}]},
        {
            "logs": [
                {"job": assign.job, "fence": assign.fence, "lines": [{"stream": "stdout", "at_ms": 0, "text": "x"}]}
            ]
        },
        {"runner_ended": [{"runner": assign.runner, "reason": "because"}]},
        {"finished": [{"job": "no such", "fence": 1, "outcome": "exploded"}]},
        {"finished": [{"job": "j", "fence": 1, "outcome": "failed", "error": deep_causes(400)}]},
        {"heartbeat": [{"sent_at_ms": -(2**63), "held": [{"job": assign.job, "fence": assign.fence}]}]},
    ]

    await speak(cloud, cloud.worker_actor, encode({"hello": [hello()]}), *map(encode, lies))

    assert await cloud.status(submitted.job) in ("starting", "running")
    worker.succeed(assign, b"1")
    assert (await ended(submitted)).value == Value("json", b"1")
    assert "job.log" not in {kind for _, kind in await cloud.events(submitted.job)}


ENDS = {
    "a version with a NUL": {"outcome": "succeeded", "value": Value("json", b"1", "3\0")},
    "an encoding that is none": {"outcome": "succeeded", "value": Value("e\0", b"1")},
    "no value": {"outcome": "succeeded"},
    "an error with NULs": {"outcome": "failed", "error": RemoteError("\0", "\0", "\0", "\0")},
    "no error": {"outcome": "failed"},
    "a negative duration": {"outcome": "failed", "ran_ms": -(2**62)},
    "an outcome that is none": {"outcome": "exploded"},
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_an_impossible_end_of_its_own_attempt_ends_the_job_or_is_tried_again(cloud, end):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    submitted = await cloud.spawn()
    assign = await worker.take()

    worker.report({"finished": [Finished(assign.job, assign.fence, **end)]})
    if end["outcome"] == "exploded":  # no end at all; the attempt goes when its runner does
        worker.report({"runner_ended": [RunnerEnded(assign.runner, "gone")]})
    again = asyncio.ensure_future(worker.take())
    await asyncio.wait({submitted.outcome, again}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    if again.done():
        worker.succeed(again.result(), b"2")
    again.cancel()

    outcome = await ended(submitted)
    assert outcome.status.is_final
    assert await cloud.status(submitted.job) == outcome.status.value


async def test_lines_that_cannot_be_stored_are_stored_as_text_that_can(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    submitted = await cloud.spawn()
    assign = await worker.take()

    lines = [LogLine("std\0out", -(2**63), "a\0b"), LogLine("stdout", 2**63, "c"), LogLine("stdout", 1, "d" * 100_000)]
    worker.report({"logs": [Logs(assign.job, assign.fence, 0, lines)]})
    worker.succeed(assign, b"1")

    assert (await ended(submitted)).value == Value("json", b"1")
    assert [kind for _, kind in await cloud.events(submitted.job)].count("job.log") == 3


async def test_a_runner_that_ended_for_a_reason_that_cannot_be_stored_gives_its_attempt_back(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    submitted = await cloud.spawn()
    assign = await worker.take()

    worker.report({"runner_ended": [RunnerEnded(assign.runner, "a\0b")]})
    again = await worker.take()
    worker.succeed(again, b"2")

    assert (await ended(submitted)).attempt == 2
    assert [kind for _, kind in await cloud.events(submitted.job)].count("job.error") == 1


async def test_a_worker_of_an_org_that_does_not_run_the_installation_is_refused(cloud):
    key = await cloud.inner.keys.create(cloud.other_actor.org, name="worker", role=Role.WORKER)
    client = AsgiClient(cloud.asgi, key)
    deployment = await cloud.deploy()

    answer = await client.request("GET", f"/v1/link/archives/{deployment.id}")

    assert answer.status == 403
    assert ARCHIVE not in answer.body


async def test_a_worker_that_says_nothing_is_closed_at_once_when_it_is_to_dial_again(cloud):
    said = Said()
    session = Session(cloud.inner.links, cloud.worker_actor, said)
    serving = asyncio.ensure_future(session.run(asyncio.Event().wait()))
    session.receive(encode({"hello": [hello()]}))
    async with asyncio.timeout(10):
        await said.changed.wait()
        (worker,) = cloud.inner.board.fleet.workers.values()
        cloud.inner.board.dial_again(worker, "for a test")
        code = await serving

    assert code == REFUSED
    assert not cloud.inner.board.links


async def test_a_link_on_which_something_cannot_be_said_ends_rather_than_leave_it_out(cloud):
    said = Said()
    session = Session(cloud.inner.links, cloud.worker_actor, said)
    serving = asyncio.ensure_future(session.run(asyncio.Event().wait()))
    session.receive(encode({"hello": [hello()]}))
    async with asyncio.timeout(10):
        await said.changed.wait()
        session.send("logs_taken", LogsTaken("a job", 1, 2**64))
        with pytest.raises(OverflowError):
            await serving

    assert not cloud.inner.board.links


async def test_messages_behind_one_that_waits_for_the_store_are_acted_on_after_it_and_in_order(cloud):
    said = Said()
    session = Session(cloud.inner.links, cloud.worker_actor, said)
    session.receive(encode({"hello": [hello()]}))
    heartbeat = {"sent_at_ms": 7, "held": []}
    late = Finished("no such", 3, "lost")
    session.receive(encode({"heartbeat": [heartbeat]}))
    session.receive(encode({"finished": [late]}))
    session.receive(b"\xc1")

    assert said.is_paused
    assert said.answers == []
    async with asyncio.timeout(10):
        code = await session.run(asyncio.Event().wait())
    names = [name for answer in said.answers for name in answer]
    assert code == 1007
    assert names.index("welcome") < names.index("heartbeat_answer") < names.index("settled")


async def test_a_worker_that_hangs_up_at_once_was_heard(cloud):
    session = Session(cloud.inner.links, cloud.worker_actor, Said())
    session.receive(encode({"hello": [hello(name="hasty")]}))
    session.receive(encode({"draining": [{"finish_s": 1.0}]}))
    async with asyncio.timeout(10):
        await session.run(asyncio.sleep(0))

    (worker,) = cloud.inner.board.fleet.workers.values()
    assert worker.is_draining
    assert not worker.is_linked
