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

from _measuring import Options, Report, run
from _processes import below
from _verdict import at_most, plain, seconds
from clouds import PROGRAM
from filling import fill

IMPORTS, CALLERS = 5, 16
WAIT_S = 600.0
APP = Path(__file__).parent / "_noop" / "visit.py"
READY_S = 10.0


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
        everything = [self._process.pid, *below(self._process.pid), *self._of_folder()]
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
                    found += [int(path.parent.name), *below(int(path.parent.name))]
            except OSError:
                continue
        return [pid for pid in found if pid != os.getpid()]


def main() -> int:
    """Measure, print, and return the exit code."""
    options = Options(__doc__, "few jobs")
    options.number("jobs", 10_000, 200, "jobs, one of which runs")
    options.add_argument("--live", type=int, help="measure a start with so many further unfinished jobs instead")
    given = options.read()
    return run(_measure if given.live is None else _measure_live, given)


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Report:
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
    twice = sum(count > 1 for count in visits.numbers.values())
    import_s = statistics.median(imports)
    beside = ("import of the server", import_s)
    return Report(
        title=f"A restart with {options.jobs:,} jobs waiting",
        text=f"Import of the server {import_s:.2f} s; ready after {ready_s:.2f} s, first job after {first_s:.2f} s.",
        goals=[
            at_most("P23", "a restart to the first job", first_s, 3, 1.5, beside=beside, show=seconds),
            at_most("P23", "jobs lost", lost, 0, show=plain),
            at_most("P23", "jobs run twice; one ran", twice, 1, show=plain),
        ],
        figures={"jobs": options.jobs, "import_s": import_s, "ready_s": ready_s, "first_dispatch_s": first_s},
    )


def _measure_live(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Report:
    cloud, visits = Cloud(folder), Visits()
    stack.callback(cloud.stop)
    cloud.start()
    subprocess.run([sys.executable, APP], check=True, cwd=APP.parent)
    _spawn(2, visits)
    plain_s = fill(folder / "data", options.live)
    cloud.kill()
    began = time.perf_counter()
    cloud.start()
    ready_s = time.perf_counter() - began
    return Report(
        title=f"A restart with {options.live:,} live jobs",
        text=f"Plain read of the rows {plain_s:.2f} s; ready after {ready_s:.2f} s, {ready_s / plain_s:.1f} times.",
        goals=[at_most("G14.3", "a restart until it is ready", ready_s, READY_S, show=seconds)],
        figures={"live": options.live, "plain_read_s": plain_s, "ready_s": ready_s},
    )


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


if __name__ == "__main__":
    sys.exit(main())
