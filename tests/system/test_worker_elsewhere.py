"""A worker in a network of its own, as on another host: it reaches the server, and nothing reaches it."""

import ipaddress
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.skips import needs

from .clouds import until
from .joined import is_live, listed, token_file
from .people import APOTHIC, ROOT
from .processes import descendants, name_of

PAGE = ROOT / "docs/concepts/workers-on-other-hosts.md"
LISTENS = "0A"
NETS = ipaddress.ip_network("198.18.0.0/17")
"""Of the addresses that are set aside for tests of networks; runs at the same time take different ones."""


class Network:
    """A network namespace joined to this host by one cable; `here` and `there` are the addresses of its ends."""

    def __init__(self, ip):
        self._ip = ip
        self.name = f"apothic-test-{os.getpid()}"
        nets = list(NETS.subnets(new_prefix=30))
        self.here, self.there = map(str, nets[os.getpid() % len(nets)].hosts())
        self._cable = f"ap{os.getpid() % 1_000_000}"

    @property
    def inside(self):
        """Words that run a command in the namespace and change nothing else."""
        return ("nsenter", f"--net=/run/netns/{self.name}")

    def make(self):
        self._run("netns", "add", self.name)
        self._run(
            "link", "add", f"{self._cable}a", "type", "veth", "peer", "name", f"{self._cable}b", "netns", self.name
        )
        self._run("addr", "add", f"{self.here}/30", "dev", f"{self._cable}a")
        self._run("link", "set", f"{self._cable}a", "up")
        for words in (
            ("addr", "add", f"{self.there}/30", "dev", f"{self._cable}b"),
            ("link", "set", f"{self._cable}b", "up"),
        ):
            self._run("-n", self.name, *words)

    def remove(self):
        """Leave nothing, however far `make` came."""
        for words in (("netns", "del", self.name), ("link", "del", f"{self._cable}a")):
            subprocess.run([self._ip, *words], check=False, capture_output=True)

    def _run(self, *words):
        subprocess.run([self._ip, *words], check=True)


@pytest.fixture
def network():
    """A network beside this host's, until the test ends."""
    needs("nsenter", package="util-linux")
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a network namespace")
    made = Network(needs("ip", package="iproute2"))
    try:
        made.make()
        yield made
    finally:
        made.remove()


def shown_options(url, token):
    """Return the options of the command that the page shows, for this server and this token."""
    shown = PAGE.read_text("utf-8")
    command = next(line for line in shown.splitlines() if line.startswith("$ apothic worker join --server"))
    values = {"https://cloud.example": url, "join-token": str(token)}
    words = [values.get(word, word) for word in shlex.split(command)[4:]]
    return words[: words.index("--name")]


def joined(person, workers, cloud, name, network=None):
    """Have a worker join, here or in the other network, and wait until it is there."""
    options = shown_options(cloud.url, token_file(person, f"token-{name}"))
    worker = workers(*options, "--insecure", name=name, before=network.inside if network else ())
    until(lambda: is_live(person, name), f"{name} is there")
    return worker


def listening(pid):
    """Return the addresses in the network of a process at which something waits for others to dial in."""
    tables = [(Path(f"/proc/{pid}/net") / name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    return [row.split()[1] for table in tables for row in table if row.split()[3] == LISTENS]


def at_gate(cloud, job, worker, attempt=1):
    """Wait until an attempt of the job `gate` runs below a worker; return its process."""

    def runs():
        is_there = cloud.job(job)["attempt"] == attempt and cloud.lines(job).count("waiting") == attempt
        return is_there and [pid for pid in descendants(worker.process.pid) if name_of(pid) == "gate"]

    return until(runs, f"attempt {attempt} runs there", 60)[0]


def test_what_a_worker_in_another_network_ran_when_it_died_runs_on_another_one(own_cloud, stranger, workers, network):
    host = ("--no-worker", "--host", network.here, "--behind-proxy")
    cloud = own_cloud(*host, "--disconnect-grace-s", "3")
    stranger.python(stranger.copy("tests/system/jobs_app.py")).ok()
    far = joined(stranger, workers, cloud, "far", network)
    lost = cloud.spawn("jobs", "gate")
    at_gate(cloud, lost, far)
    near = joined(stranger, workers, cloud, "near")

    far.end(signal.SIGKILL)
    os.kill(at_gate(cloud, lost, near, attempt=2), signal.SIGUSR1)

    assert (cloud.outcome(lost)["result"], cloud.job(lost)["attempt"]) == ("opened", 2)
    assert listed(stranger)["far"]["status"] == "offline"


@guarantee("G2.5", "drain_no_lost_no_penalty")
def test_a_worker_in_another_network_works_outlives_the_server_and_is_drained(own_cloud, stranger, workers, network):
    host = ("--no-worker", "--host", network.here, "--behind-proxy", "--disconnect-grace-s", "60")
    cloud = own_cloud(*host)
    stranger.python(stranger.copy("tests/system/jobs_app.py")).ok()
    options = shown_options(cloud.url, token_file(stranger))
    refused = stranger.run(*network.inside, APOTHIC, "worker", "join", *options, "--data", stranger.home / "no")
    far = joined(stranger, workers, cloud, "far", network)
    parcel = "x" * 900_000

    # Archive, arguments and result travel over what the worker dialled, and it never waits to be dialled.
    echoed = cloud.outcome(cloud.spawn("jobs", "echo", parcel))
    job = cloud.spawn("jobs", "gate")
    gate = at_gate(cloud, job, far)
    waiting = listening(far.process.pid)

    # The server dies and comes back: what runs in the other network goes on.
    cloud.process.kill()
    cloud.process.communicate(timeout=30)
    cloud = own_cloud(*host, "--port", cloud.url.rpartition(":")[2])
    until(lambda: is_live(stranger, "far"), "the worker is back")
    stranger.apothic("worker", "drain", "far").ok()
    draining = listed(stranger)["far"]
    os.kill(gate, signal.SIGUSR1)
    ended = cloud.outcome(job), cloud.job(job)["attempt"]
    stranger.apothic("worker", "remove", "far", "--yes").ok()

    assert refused.status == 2
    assert "--insecure" in refused.err
    assert echoed["result"] == parcel
    assert waiting == []
    assert (draining["status"], draining["jobs"]) == ("draining", 1)
    assert (ended[0]["result"], ended[1]) == ("opened", 1)
    assert far.process.wait(timeout=30) == 3
    assert listed(stranger) == {}
