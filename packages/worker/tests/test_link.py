"""The life of the link: refusals, reconnects, drains, fences, and what a killed worker leaves."""

import asyncio
import ctypes
import json
import os
import signal
from pathlib import Path

import pytest

from apothic.wire import link
from apothic.wire.tokens import new_token
from apothic_server.testing.guarantees import guarantee
from apothic_worker.processes import become_subreaper, children, descendants
from apothic_worker.testing.scripted_server import ScriptedServer

from .conftest import OPTIONS, cgroups_of, linked, start_worker

pytestmark = pytest.mark.anyio

APP = """
import os, time

def pid():
    return os.getpid()

def wait(path):
    print("waiting", flush=True)
    time.sleep(600)

def hold():
    # No thread of this interpreter runs until a signal comes.
    import ctypes, signal
    signal.signal(signal.SIGUSR1, lambda *_: None)
    ctypes.CDLL(None).prctl(15, b"holder", 0, 0, 0)
    print("waiting", flush=True)
    ctypes.PyDLL(None).pause()
    return "held"

def nap(s):
    print("waiting", flush=True)
    time.sleep(s)
    return "rested"
"""
REMOTE = ("--name", "tester")
BESIDE = ("--local", "--name", "tester")


@pytest.fixture
def subreaper():
    """Let orphans of our workers come to this process and not to one that may reap them unseen."""
    become_subreaper()
    yield
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)


def name_of(pid: int) -> str:
    """The name that a process gave itself; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


async def ended(worker) -> tuple[int, str]:
    _, written = await asyncio.wait_for(worker.process.communicate(), 30)
    return worker.process.returncode, written.decode()


async def running(server: ScriptedServer, function: str, *args: object, **changes: object) -> link.Assign:
    """Start an attempt in a runner with these changes and return when user code has it."""
    runner = await server.started_runner(server.deploy({"app.py": APP}), function, **changes)
    order = server.assignment(runner, *args)
    await server.send(assign=[order])
    await server.wait_for(link.Logs, lambda item: item.job == order.job)
    return order


def refs(hello: link.Hello) -> list[link.AttemptRef]:
    """The attempts of a hello, as a welcome names them."""
    return [link.AttemptRef(held.job, held.fence) for held in hello.held]


def names(hello: link.Hello) -> list[str]:
    """The runners of a hello, as a welcome names them."""
    return [ref.runner for ref in hello.runners]


async def test_a_token_that_is_not_accepted_ends_the_worker_with_3(tmp_path):
    async with ScriptedServer() as server:
        worker = await start_worker(server, tmp_path / "data", token=new_token("lw"))
        code, written = await ended(worker)

    assert code == 3
    assert "does not accept this worker's token" in written
    assert server.token not in written


@pytest.mark.parametrize(("refusal", "code"), [("protocol", 1), ("forbidden", 3), ("something_new", 1)])
async def test_a_refusal_is_final_and_told(tmp_path, refusal, code):
    async with ScriptedServer() as server:
        server.welcome = lambda _: {"refused": [link.Refused(refusal, "both must be of one release")]}
        server.closes_after_welcome = True
        worker = await start_worker(server, tmp_path / "data")
        found, written = await ended(worker)

    assert found == code
    assert "both must be of one release" in written


async def test_a_worker_that_joined_begins_anew_when_it_was_given_up_because_nobody_else_starts_it(tmp_path):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    async with ScriptedServer() as server:
        joined = {"server": server.url, "name": "box", "token": server.token, "is_insecure": False, "is_joined": True}
        (data / "credential.json").write_text(json.dumps(joined))
        (data / "credential.json").chmod(0o600)
        usual = server.welcome
        server.welcome = lambda _: {"refused": [link.Refused("fenced", "the lease of this incarnation ended")]}
        server.closes_after_welcome = True
        worker = await start_worker(server, data, verb="join")
        first = await server.wait_for_hello(worker.process)
        server.welcome, server.closes_after_welcome = usual, False
        server.items.clear()
        second = await server.wait_for_hello(worker.process)
        while second.incarnation == first.incarnation:
            server.items.clear()
            second = await server.wait_for_hello(worker.process)
        code = await worker.stop()

    assert second.name == "box"
    assert code == 0


async def test_a_worker_that_was_moved_dials_the_other_address(tmp_path):
    async with ScriptedServer() as first, ScriptedServer(token=first.token) as second:
        first.welcome = lambda _: {"refused": [link.Refused("moved", "over there", second.url)]}
        first.closes_after_welcome = True
        worker = await start_worker(first, tmp_path / "data")
        hello = await second.wait_for_hello(worker.process)
        code = await worker.stop()

    assert hello.name
    assert code == 0


async def test_an_end_that_was_not_settled_is_told_again_on_the_next_link(tmp_path):
    async with linked(tmp_path / "data") as (server, worker):
        server.settles = False
        runner = await server.started_runner(server.deploy({"app.py": APP}), "pid")
        end = await server.call(runner)
        server.items.clear()
        await server.links[-1].close(1001)
        hello = await server.wait_for_hello(worker.process)
        again = await server.wait_for(link.Finished)
        await server.wait_for(link.Started)
        server.settles = True
        await server.send(settled=[link.Settled(end.job, end.fence)])

        second = await server.call(runner)

    assert hello.held == [link.HeldAttempt(end.job, end.fence, runner)]
    assert names(hello) == [runner]
    assert again == end
    assert second.value == end.value


async def test_work_goes_on_while_the_link_is_away(tmp_path):
    async with linked(tmp_path / "data") as (server, worker):
        order = await running(server, "nap", 0.5)
        server.items.clear()
        await server.links[-1].close(1001)
        hello = await server.wait_for_hello(worker.process)

        end = await server.finished(order)

    assert hello.held == [link.HeldAttempt(order.job, order.fence, order.runner)]
    assert names(hello) == [order.runner]
    assert (end.outcome, end.value.data) == ("succeeded", b'"rested"')


async def test_the_newest_ping_of_a_link_comes_back_with_the_next_heartbeat(tmp_path):
    async with ScriptedServer() as server:
        server.welcome = lambda hello: {"welcome": [link.Welcome("w1", 0.1, 30.0, 1)], "ping": [link.Ping(4)]}
        worker = await start_worker(server, tmp_path / "data", *OPTIONS)
        await server.wait_for(link.Heartbeat, lambda item: item.echo == 4)
        await server.send(ping=[link.Ping(5), link.Ping(6)])
        await server.wait_for(link.Heartbeat, lambda item: item.echo == 6)
        server.welcome = lambda hello: {"welcome": [link.Welcome("w1", 0.1, 30.0, 1)]}
        server.items.clear()
        await server.links[-1].close(1001)
        await server.wait_for_hello(worker.process)
        fresh = await server.wait_for(link.Heartbeat)
        await worker.stop()

    assert fresh.echo == 0


@guarantee("G3.1", "heartbeat_survives_busy_user_code")
async def test_heartbeats_go_on_while_user_code_holds_its_interpreter(tmp_path):
    async with ScriptedServer() as server:
        server.welcome = lambda hello: {"welcome": [link.Welcome("w1", 0.05, 30.0, 1)]}
        worker = await start_worker(server, tmp_path / "data", *REMOTE)
        await server.wait_for_hello(worker.process)
        order = await running(server, "hold")
        for _ in range(20):
            server.items.clear()
            beat = await server.wait_for(link.Heartbeat)
            assert beat.held == [link.AttemptRef(order.job, order.fence)]
        holder = next(pid for pid in descendants(worker.process.pid) if name_of(pid) == "holder")
        end = asyncio.ensure_future(server.finished(order))
        while not end.done():  # a signal that comes before the wait for it is repeated
            os.kill(holder, signal.SIGUSR1)
            await asyncio.wait([end], timeout=0.2)
        await worker.stop()

    assert (end.result().outcome, end.result().value.data) == ("succeeded", b'"held"')


@guarantee("G4.4", "no_leaked_resources")
async def test_a_sandbox_that_is_killed_from_outside_leaves_not_even_a_zombie(tmp_path, subreaper):
    async with linked(tmp_path / "data") as (server, worker):
        order = await running(server, "wait", "x")
        below = descendants(worker.process.pid)
        sandbox = next(pid for pid in children(worker.process.pid) if descendants(pid))
        os.kill(sandbox, signal.SIGKILL)
        end = await server.finished(order)
        again = await server.call(await server.started_runner(server.deploy({"app.py": APP}), "pid"))
        left = [pid for pid in below if Path(f"/proc/{pid}").exists()]

    assert (end.outcome, again.outcome) == ("lost", "succeeded")
    assert left == []


async def test_what_the_server_does_not_know_is_stopped_in_silence(tmp_path):
    async with linked(tmp_path / "data") as (server, worker):
        order = await running(server, "wait", "x")
        server.items.clear()
        server.welcome = lambda hello: {"welcome": [link.Welcome("w1", 10.0, 30.0, 1, refs(hello), [])]}
        await server.links[-1].close(1001)
        await server.wait_for_hello(worker.process)

        await server.wait_for(link.RunnerEnded)

    assert not any(isinstance(item, link.Finished) and item.job == order.job for item in server.items)


async def test_a_runner_that_the_server_does_not_know_is_ended(tmp_path):
    async with linked(tmp_path / "data") as (server, worker):
        runner = await server.started_runner(server.deploy({"app.py": APP}), "pid")
        await server.call(runner)
        server.items.clear()
        server.welcome = lambda hello: {"welcome": [link.Welcome("w1", 0.1, 30.0, 1, [], names(hello))]}
        await server.links[-1].close(1001)
        await server.wait_for_hello(worker.process)
        await server.wait_for(link.Heartbeat)

        end = await server.call(runner)

    assert end.outcome == "lost"
    assert not any(isinstance(item, link.RunnerEnded) for item in server.items)


async def test_heartbeats_name_what_is_held_and_silence_opens_a_new_link(tmp_path):
    async with ScriptedServer() as server:
        server.welcome = lambda _: {"welcome": [link.Welcome("w1", 0.1, 30.0, 1)]}
        worker = await start_worker(server, tmp_path / "data", *OPTIONS)
        await server.wait_for_hello(worker.process)
        order = await running(server, "wait", "x")
        beat = await server.wait_for(link.Heartbeat, lambda item: bool(item.held))
        server.items.clear()
        server.answers_heartbeats = False
        await server.wait_for_hello(worker.process)
        await server.send(cancel=[link.Cancel(order.job, order.fence, 1.0)])
        await server.finished(order)
        server.answers_heartbeats = True
        code = await worker.stop()

    assert beat.held == [link.AttemptRef(order.job, order.fence)]
    assert code == 0


async def test_user_code_is_stopped_before_an_unrenewed_lease_can_end(tmp_path):
    async with ScriptedServer() as server:
        server.welcome = lambda _: {"welcome": [link.Welcome("w1", 0.3, 1.5, 1)]}
        worker = await start_worker(server, tmp_path / "data", *REMOTE)
        await server.wait_for_hello(worker.process)
        order = await running(server, "wait", "x")
        port = server.port
        await server.shut()
        await worker_wrote(worker, "lease.lost")
        await server.listen(port)

        end = await server.finished(order)
        code = await worker.stop()

    assert (end.outcome, end.error.code) == ("lost", "worker_lost")
    assert code == 0


@guarantee("G3.2", "self_fence_on_partition")
async def test_a_runner_with_a_grace_of_its_own_goes_on_when_its_neighbour_is_stopped(tmp_path):
    async with ScriptedServer() as server:
        server.welcome = lambda _: {"welcome": [link.Welcome("w1", 0.3, 1.5, 1)]}
        worker = await start_worker(server, tmp_path / "data", *REMOTE)
        await server.wait_for_hello(worker.process)
        kept = await running(server, "wait", "kept", disconnect_grace_s=600)
        lost = await running(server, "wait", "lost")
        port = server.port
        await server.shut()
        await worker_wrote(worker, "lease.lost", lost.runner)
        await server.listen(port)
        end = await server.finished(lost)
        server.items.clear()
        await server.send(cancel=[link.Cancel(kept.job, kept.fence, 5.0)])
        stopped = await server.finished(kept)
        code = await worker.stop()

    assert (end.outcome, end.error.code) == ("lost", "worker_lost")
    assert stopped.outcome == "cancelled"
    assert code == 0


async def test_a_drain_lets_running_work_finish_and_gives_back_the_rest(tmp_path):
    async with linked(tmp_path / "data") as (server, worker):
        order = await running(server, "nap", 0.7)
        waiting = server.assignment(order.runner, 0)
        await server.send(assign=[waiting])
        await server.wait_for(link.Started)
        await server.round_trip()
        worker.process.send_signal(signal.SIGTERM)

        draining = await server.wait_for(link.Draining)
        ends = [await server.finished(order), await server.finished(waiting)]
        code = await worker.stop()

    assert draining.finish_s == 15.0
    assert [end.outcome for end in ends] == ["succeeded", "lost"]
    assert code == 0


async def test_a_second_signal_stops_user_code_at_once(tmp_path):
    async with linked(tmp_path / "data") as (server, worker):
        order = await running(server, "wait", "x")
        worker.process.send_signal(signal.SIGTERM)
        await server.wait_for(link.Draining)
        worker.process.send_signal(signal.SIGTERM)

        end = await server.finished(order)
        code = await worker.stop()

    assert (end.outcome, end.error.code) == ("lost", "worker_lost")
    assert code == 0


async def test_nothing_runs_after_a_killed_worker_and_the_next_one_sweeps(tmp_path):
    data = tmp_path / "data"
    async with ScriptedServer() as server:
        worker = await start_worker(server, data, *OPTIONS)
        first = await server.wait_for_hello(worker.process)
        await running(server, "wait", "x")
        members = [pid for group in cgroups_of(worker) for pid in all_members(group)]
        worker.process.kill()
        await worker.process.communicate()
        server.items.clear()

        following = await start_worker(server, data, *OPTIONS)
        hello = await server.wait_for_hello(following.process)
        code = await following.stop()

    assert members
    assert cgroups_of(worker) == []
    assert (hello.held, hello.runners, code) == ([], [], 0)
    assert (first.forerunners, hello.forerunners) == ([], [first.incarnation])


async def test_one_data_folder_serves_one_worker(tmp_path):
    async with linked(tmp_path / "data") as (server, worker):
        other = await start_worker(server, worker.data, *OPTIONS)
        code, written = await ended(other)

    assert code == 1
    assert "another worker uses the data folder" in written


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--url", "ftp://x"), 2, "is no address of a control plane"),
        (("--token-file", "/nonexistent"), 2, "cannot be read"),
        (("--executor", "process"), 1, "would run user code as root"),
    ],
)
async def test_bad_settings_are_told_in_a_sentence(tmp_path, options, code, words):
    async with ScriptedServer() as server:
        found, written = await ended(await start_worker(server, tmp_path / "data", *options))

    assert found == code
    assert words in written
    assert "Traceback" not in written


async def test_a_token_file_that_others_can_read_is_refused(tmp_path):
    file = tmp_path / "token"
    file.write_text(new_token("lw"))
    file.chmod(0o644)
    async with ScriptedServer() as server:
        code, written = await ended(await start_worker(server, tmp_path / "data", "--token-file", str(file)))

    assert code == 2
    assert "chmod 600" in written


async def worker_wrote(worker, event: str, words: str = "") -> None:
    """Read the worker's log until the event, with these words in its line."""
    async with asyncio.timeout(30):
        while (line := await worker.process.stderr.readline()) and not (
            json.loads(line)["event"] == event and words.encode() in line
        ):
            pass
    assert line


def all_members(group: Path) -> list[int]:
    return [int(line) for file in group.rglob("cgroup.procs") for line in file.read_text().split()]


async def test_a_worker_beside_its_server_outlives_it_and_finds_the_next_one_by_its_files(tmp_path):
    address, token = tmp_path / "address", tmp_path / "token"
    token.touch(0o600)

    def hand_over(server: ScriptedServer) -> None:
        token.write_text(server.token)
        address.write_text(server.url)

    async with ScriptedServer() as first:
        hand_over(first)
        worker = await start_worker(None, tmp_path / "data", *BESIDE, "--url-file", address, "--token-file", token)
        await first.wait_for_hello(worker.process)
        order = await running(first, "nap", 0.5)
    async with ScriptedServer() as stranger, ScriptedServer() as second:
        address.write_text(stranger.url)  # somebody else at the old address does not accept the token
        await worker_wrote(worker, "link.away", "does not accept")
        hand_over(second)
        hello = await second.wait_for_hello(worker.process)
        end = await second.finished(order)
        code = await worker.stop()

    assert hello.held == [link.HeldAttempt(order.job, order.fence, order.runner)]
    assert (end.outcome, code) == ("succeeded", 0)


async def test_a_worker_that_holds_nothing_and_finds_no_server_ends_by_itself(tmp_path):
    async with ScriptedServer() as server:
        worker = await start_worker(server, tmp_path / "data", *BESIDE, "--alone-s", "0.2")
        await server.wait_for_hello(worker.process)
        recorded = json.loads((tmp_path / "data" / "worker.json").read_text())
    code, written = await ended(worker)

    assert recorded["pid"] == worker.process.pid
    assert code == 0
    assert "worker.alone" in written
    assert list((tmp_path / "data" / "scratch").iterdir()) == []
    assert not (tmp_path / "data" / "worker.json").exists()


async def test_a_worker_that_still_executes_stays_until_its_result_is_delivered(tmp_path):
    address = tmp_path / "address"
    async with ScriptedServer() as first:
        address.write_text(first.url)
        options = (*BESIDE, "--alone-s", "0.1", "--url-file", address)
        worker = await start_worker(None, tmp_path / "data", *options, token=first.token)
        await first.wait_for_hello(worker.process)
        order = await running(first, "nap", 1)
        key = first.token
    await worker_wrote(worker, "link.away")
    async with ScriptedServer(token=key) as second:
        address.write_text(second.url)
        await second.wait_for_hello(worker.process)
        end = await second.finished(order)
        await worker.stop()

    assert end.outcome == "succeeded"


async def test_a_worker_without_a_server_stops_user_code_at_once_when_told_to_stop(tmp_path):
    async with ScriptedServer() as server:
        worker = await start_worker(server, tmp_path / "data", *BESIDE)
        await server.wait_for_hello(worker.process)
        await running(server, "wait", "x")
    await worker_wrote(worker, "link.away")
    worker.process.send_signal(signal.SIGTERM)
    code, written = await ended(worker)

    assert code == 0
    assert '"finish_s": 0.0' in written
