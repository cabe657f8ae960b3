"""Nothing of a runner survives it, however it detached itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from apothic_server.testing.guarantees import guarantee

APP = """
    import os, signal, subprocess, time

    def detach(reader=None):
        \"\"\"Start a process that left session, group and parent, and ignores TERM; return its id.\"\"\"
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.write(write, str(os.getpid()).encode())
                os.close(write)
                signal.pause()
            os._exit(0)
        os.close(write)
        pid = int(os.read(read, 100))
        os.close(read)
        return pid

    def detach_many():
        return [detach() for _ in range(5)] + [subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True).pid]

    def detach_and_die():
        print(detach(), flush=True)
        os._exit(5)

    def ignore_term():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pid = detach()
        print(pid, flush=True)
        signal.pause()

    def pause():
        print("pausing", flush=True)
        signal.pause()

    def breed():
        \"\"\"A bounded fork bomb: every process replaces itself by two until the budget is spent.\"\"\"
        import resource
        print("breeding", flush=True)
        for generation in range(6):
            os.fork()
        signal.pause()
"""


@pytest.fixture
def worker(load):
    return load(APP)


@guarantee("G4.2", "no_process_left")
def test_detached_processes_are_gone_before_exited_is_sent(worker, is_gone) -> None:
    runner = worker.start("detach_many")
    pids = runner.result()
    assert not any(is_gone(pid) for pid in pids)
    runner.send(kind="stop")
    assert worker.exited(runner) == (0, None)
    assert [pid for pid in pids if not is_gone(pid)] == []


def test_detached_processes_of_a_crashed_runner_are_gone_too(worker, is_gone) -> None:
    runner = worker.start("detach_and_die")
    runner.submit("c")
    assert worker.exited(runner) == (5, None)
    assert is_gone(int(runner.printed(runner.out)))


@guarantee("G4.2", "no_process_left")
def test_kill_ends_what_ignores_term(worker, is_gone) -> None:
    runner = worker.start("ignore_term")
    runner.submit("c")
    pid = int(os.read(runner.out, 100))
    worker.kill(runner, signal.SIGTERM)
    other = worker.start("detach")  # an answer after TERM was handed out: the first one still lives
    assert not is_gone(runner.pid)
    worker.kill(runner, signal.SIGKILL)
    assert worker.exited(runner) == (None, signal.SIGKILL)
    assert is_gone(pid)
    assert is_gone(runner.pid)
    assert not is_gone(other.pid)


def test_term_reaches_a_runner_that_does_not_ignore_it(worker) -> None:
    runner = worker.start("pause")
    runner.submit("c")
    assert os.read(runner.out, 100) == b"pausing\n"
    worker.kill(runner, signal.SIGTERM)
    assert worker.exited(runner) == (None, signal.SIGTERM)


@guarantee("G4.2", "no_process_left")
def test_a_bounded_fork_bomb_is_killed_whole_while_it_spreads(worker) -> None:
    runner = worker.start("breed")
    runner.submit("c")
    assert os.read(runner.out, 9) == b"breeding\n"
    worker.kill(runner, signal.SIGKILL)
    assert worker.exited(runner) == (None, signal.SIGKILL)
    assert _children(worker.process.pid) == []


def test_ending_one_runner_spares_what_another_started(worker, is_gone) -> None:
    first, second = worker.start("detach"), worker.start("detach")
    kept, lost = first.result(), second.result()
    worker.kill(second, signal.SIGKILL)
    assert worker.exited(second) == (None, signal.SIGKILL)
    assert is_gone(lost)
    assert not is_gone(kept)


def test_closing_the_control_socket_kills_everything(worker, is_gone) -> None:
    runner = worker.start("detach_many")
    pids = runner.result()
    worker.control.close()
    assert worker.process.wait(30) == 0
    assert [pid for pid in [*pids, runner.pid] if not is_gone(pid)] == []


def test_a_kill_for_a_runner_that_ended_is_ignored(worker) -> None:
    runner = worker.start("detach")
    runner.send(kind="stop")
    assert worker.exited(runner) == (0, None)
    worker.kill(runner, signal.SIGKILL)
    worker.start("detach")


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
