"""How long after the death of a whole cloud its queued jobs go on, and whether one was lost or ran twice (P23).

One job runs, many wait; server, worker and database are killed at once and the cloud is started again. Timed from that
start to the first job that reports itself. Then all jobs run, and each tells its number.

With `--live N` instead: N further unfinished jobs are written into the store; timed until the cloud is ready, beside a
plain read of the same rows by the same driver (G14.3).

Usage: restart.py [--quick] [--json FILE] [--jobs N] [--live N]

Exits with 0 also when a goal is missed, and with 1 when the run is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _machine import machine_line, moment
from _measuring import run
from _verdict import Goal, as_json, goal_table

JOBS, IMPORTS, CALLERS = 10_000, 5, 16
WAIT_S = 600.0
APP = Path(__file__).parent / "_noop" / "visit.py"
READY_S = 10.0
COPY = """
    INSERT INTO jobs (id, org, app, deployment, function, status, path, run_at, arguments, arguments_encoding,
        arguments_python, next_index, created_by, created_at)
    SELECT lpad(n::text, 26, '0'), org, app, deployment, function, status, path, run_at, arguments, arguments_encoding,
        arguments_python, next_index, created_by, created_at
    FROM (SELECT * FROM jobs WHERE status = 'queued' LIMIT 1) AS queued, generate_series(1, $1) AS n
"""
PROGRAM = Path(sys.executable).with_name("apothic")


class Visits:
    """Listens to the jobs: which numbers came, and how often; jobs wait until they are let go."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.numbers: Counter[int] = Counter()
        self._held: list[socket.socket] = []
        self._lock = threading.Condition()
        self._holds = True
        threading.Thread(target=self._listen, daemon=True).start()

    def wait_for(self, count: int) -> None:
        """Wait until so many visits were made."""
        with self._lock:
            if not self._lock.wait_for(lambda: self.numbers.total() >= count, WAIT_S):
                sys.exit(f"broken: {self.numbers.total()} of {count} visits within {WAIT_S:.0f} s")

    def wait_for_numbers(self, count: int) -> None:
        """Wait until so many different jobs came."""
        with self._lock:
            if not self._lock.wait_for(lambda: len(self.numbers) >= count, WAIT_S):
                print(f"{len(self.numbers)} of {count} jobs came within {WAIT_S:.0f} s", file=sys.stderr)

    def let_go(self) -> None:
        """Hold nobody from now on."""
        with self._lock:
            self._holds = False
            for one in self._held:
                one.close()
            self._held.clear()

    def _listen(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            number = connection.recv(4, socket.MSG_WAITALL)
            with self._lock:
                if len(number) == 4:
                    self.numbers[int.from_bytes(number)] += 1
                self._held.append(connection)
                if not self._holds:
                    self._held.pop().close()
                self._lock.notify_all()


class Cloud:
    """`apothic up` with its shipped defaults in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._endpoint = folder / "endpoint.json"
        self._process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start it and wait until it says where it is."""
        self._endpoint.unlink(missing_ok=True)
        data = ["--data", str(self._folder / "data"), "--port", "0", "--endpoint", str(self._endpoint)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("APOTHIC_")}
        with (self._folder / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "up", *data], stderr=log, cwd=self._folder, env=environment, start_new_session=True
            )
        while not self._endpoint.exists():
            if self._process.poll() is not None:
                sys.exit(f"broken: apothic up ended\n{(self._folder / 'up.log').read_text()[-2000:]}")
            time.sleep(0.01)
        place = json.loads(self._endpoint.read_text())
        os.environ.update(APOTHIC_BASE_URL=place["url"], APOTHIC_API_KEY=place["key"])

    def kill(self) -> None:
        """Kill the server, the worker, the database and all they started, as the loss of the machine would."""
        everything = [self._process.pid, *_below(self._process.pid), *self._of_folder()]
        for pid in everything:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()

    def stop(self) -> None:
        """Stop it in good order."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
        subprocess.run([PROGRAM, "down", "--data", self._folder / "data"], check=False, capture_output=True)

    def _of_folder(self) -> list[int]:
        """Processes that a killed parent left behind but that name this folder."""
        found: list[int] = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if str(self._folder).encode() in path.read_bytes():
                    found += [int(path.parent.name), *_below(int(path.parent.name))]
            except OSError:
                continue
        return [pid for pid in found if pid != os.getpid()]


def main() -> int:
    """Measure, print, and return the exit code."""
    options = _options()
    return run(_measure if options.live is None else _measure_live, options)


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Any]:
    before = moment()
    imports = [_import_s() for _ in range(IMPORTS)]
    cloud, visits = Cloud(folder), Visits()
    stack.callback(cloud.stop)
    cloud.start()
    subprocess.run([sys.executable, APP], check=True, cwd=APP.parent)
    _spawn(options.jobs, visits)
    cloud.kill()
    began = time.perf_counter()
    cloud.start()
    ready_s = time.perf_counter() - began
    visits.wait_for(2)
    first_s = time.perf_counter() - began
    visits.let_go()
    visits.wait_for_numbers(options.jobs)
    lost = options.jobs - len(visits.numbers)
    twice = sorted(number for number, count in visits.numbers.items() if count > 1)
    import_s = statistics.median(imports)
    goals = [
        Goal("P23", f"3 imports of the server = {3 * import_s:.2f} s", f"{first_s:.2f} s", first_s <= 3 * import_s),
        Goal("P23 stretch", f"1.5 imports = {1.5 * import_s:.2f} s", f"{first_s:.2f} s", first_s <= 1.5 * import_s),
        Goal("P23", "0 jobs lost", str(lost), lost == 0),
        Goal("P23", "1 job run twice, the one that ran", str(len(twice)), len(twice) <= 1),
    ]
    line = machine_line(before, moment())
    print(f"\n## A restart with {options.jobs:,} jobs waiting\n\n{line}\n")
    print(f"Import of the server {import_s:.2f} s; ready after {ready_s:.2f} s, first job after {first_s:.2f} s.\n")
    print(goal_table(goals))
    return {
        "machine": line,
        "jobs": options.jobs,
        "import_s": import_s,
        "ready_s": ready_s,
        "first_dispatch_s": first_s,
        "goals": [as_json(goal) for goal in goals],
    }


def _measure_live(options: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Any]:
    before = moment()
    cloud, visits = Cloud(folder), Visits()
    stack.callback(cloud.stop)
    cloud.start()
    subprocess.run([sys.executable, APP], check=True, cwd=APP.parent)
    _spawn(2, visits)
    plain_s = asyncio.run(_fill(folder / "data" / "postgres", options.live))
    cloud.kill()
    began = time.perf_counter()
    cloud.start()
    ready_s = time.perf_counter() - began
    goals = [Goal("G14.3", f"ready in {READY_S:.0f} s", f"{ready_s:.2f} s", ready_s <= READY_S)]
    line = machine_line(before, moment())
    print(f"\n## A restart with {options.live:,} live jobs\n\n{line}\n")
    print(f"Plain read of the rows {plain_s:.2f} s; ready after {ready_s:.2f} s, {ready_s / plain_s:.1f} times that.\n")
    print(goal_table(goals))
    told = {"machine": line, "live": options.live, "plain_read_s": plain_s, "ready_s": ready_s}
    return {**told, "goals": [as_json(goal) for goal in goals]}


async def _fill(folder: Path, count: int) -> float:
    """Write so many copies of a queued job into the store of a running cloud, and time reading them."""
    from apothic_server.store.address import StoreAddress
    from apothic_server.store.connection import connect
    from apothic_server.store.postmaster import find_postmaster
    from apothic_server.store.recovery import SQL

    server = find_postmaster(folder / "data")
    assert server is not None, "the cloud runs"
    password = (folder / "password").read_text().strip()
    address = StoreAddress(host=server.socket_folder, user="apothic", password=password, database="apothic")
    connection = await connect(address, name="benchmark", deadline_s=WAIT_S)
    try:
        await connection.execute(COPY, count)
        read = SQL["list_unfinished_jobs"]
        began = time.perf_counter()
        rows = await connection.fetch(read, "", count)
        assert len(rows) == count
        return time.perf_counter() - began
    finally:
        await connection.close()


def _spawn(jobs: int, visits: Visits) -> None:
    from apothic import RemoteFunction

    visit = RemoteFunction.from_name("bench-restart", "visit")
    visit.spawn(visits.port, 0)
    visits.wait_for(1)
    with ThreadPoolExecutor(CALLERS) as pool:
        for _ in pool.map(lambda number: visit.spawn(visits.port, number), range(1, jobs)):
            pass


def _import_s() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import apothic_server.running"], check=True)
    return time.perf_counter() - began


def _below(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in thread.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *_below(child)]
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How long after the death of a cloud its queued jobs go on.")
    parser.add_argument("--quick", action="store_true", help="a smoke run with few jobs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    parser.add_argument("--jobs", type=int, help=f"jobs, one of which runs (default {JOBS:,})")
    parser.add_argument("--live", type=int, help="measure a start with so many further unfinished jobs instead")
    options = parser.parse_args()
    options.jobs = options.jobs or (200 if options.quick else JOBS)
    return options


if __name__ == "__main__":
    sys.exit(main())
