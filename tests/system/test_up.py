"""`apothic up` and `apothic down`: a life without accidents, as root and as a plain user."""

import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.skips import needs

from .clouds import RunningCloud
from .people import ROOT, Person, says_no_traceback
from .processes import adopting, command_of, descendants, newcomers

SAMPLE = ROOT / "examples/hello_world.py"
NOBODY = 65534


@pytest.fixture
def plain_user(stranger):
    """Somebody without any right of root's; the files of the tests' user are theirs."""
    if os.geteuid() != 0:
        return stranger
    unshare = needs("unshare", package="util-linux")
    return Person(stranger.home, (unshare, "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--"))


def test_a_detached_cloud_runs_until_down_and_leaves_no_process(stranger):
    with adopting():
        others = set(descendants(os.getpid()))
        up = stranger.apothic("up", "--detach", "--port", "0").ok()
        ran = stranger.python(SAMPLE).ok()
        down = stranger.apothic("down").ok()
        left = [command_of(pid) for pid in newcomers(others)]
        again = stranger.apothic("down").ok()

    assert "is ready" in up.err
    assert "`apothic down` stops it" in up.err
    assert ran.out.endswith("hello, world\n")
    assert "stopped the cloud" in down.err
    assert "no cloud runs" in again.err
    assert left == []
    assert not (stranger.home / ".apothic/endpoint.json").exists()


@guarantee("G2.5", "drain_no_lost_no_penalty")
def test_a_stop_lets_a_running_job_end_and_keeps_what_waits(own_cloud, stranger):
    cloud = own_cloud()
    stranger.python(stranger.copy("tests/system/jobs_app.py")).ok()
    running = cloud.spawn("jobs", "wait", 1)
    cloud.wait_line(running, "waiting")
    waiting = [cloud.spawn("jobs", "wait", 0) for _ in range(3)]
    status, said = cloud.stop()
    again = own_cloud()

    assert (status, said.splitlines()[-1]) == (0, "stopped")
    assert (again.outcome(running)["status"], again.job(running)["attempt"]) == ("succeeded", 1)
    assert [again.outcome(job_id)["result"] for job_id in waiting] == ["waited"] * 3
    assert [again.job(job_id)["attempt"] for job_id in waiting] == [1, 1, 1]


@guarantee("G17.2", "token_not_in_store")
def test_keys_stand_in_no_file_but_their_own(own_cloud, stranger):
    cloud = own_cloud()
    stranger.python(SAMPLE).ok()
    secrets = cloud.data / "secrets"
    tokens = [(secrets / name).read_bytes().strip() for name in ("key", "worker-token")]
    cloud.stop()
    files = [path for path in cloud.data.rglob("*") if path.is_file() and secrets not in path.parents]

    assert all(token.startswith((b"lk_", b"lw_")) for token in tokens)
    assert len(files) > 100
    assert [str(path) for path in files if any(token in path.read_bytes() for token in tokens)] == []


def test_a_plain_user_runs_the_sample_and_nobody_else_can_read_the_folder(plain_user):
    cloud = RunningCloud(plain_user)
    try:
        who = plain_user.python("-c", "import os; print(os.geteuid())").ok().out
        ran = plain_user.python(SAMPLE).ok()
        shown = plain_user.apothic("status", "--json").ok().json
    finally:
        cloud.close()

    assert ran.out.endswith("hello, world\n")
    assert shown["ready"]
    assert "worker  sandbox" in cloud.told
    assert int(who) != 0
    assert cloud.data.stat().st_mode & 0o077 == 0
    assert cloud.process.returncode == 0


def test_down_ends_what_a_killed_cloud_left_at_once(own_cloud, stranger):
    cloud = own_cloud()
    stranger.python(stranger.copy("tests/system/jobs_app.py")).ok()
    cloud.wait_line(cloud.spawn("jobs", "wait", 600), "waiting")
    groups = [Path(line) for line in (cloud.data / "worker/cgroups").read_text().splitlines()]
    with adopting():
        below = descendants(cloud.pid)
        cloud.kill_everything()
        before = [group for group in groups if group.is_dir()]
        down = stranger.apothic("down", "--json").ok()
        again = stranger.apothic("--jsonl", "down").ok()

    assert below != []
    assert before != [] or "limits enforced: none" in cloud.told
    assert [group for group in groups if group.exists()] == []
    assert not (cloud.data / "worker/cgroups").exists()
    assert list((cloud.data / "worker/scratch").iterdir()) == []
    assert down.json == {"data": str(cloud.data), "stopped": ["user code", "database"]}
    assert again.json == {"data": str(cloud.data), "stopped": []}


def test_programs_read_where_the_cloud_is_and_what_was_stopped(stranger):
    endpoint = stranger.home / ".apothic/endpoint.json"
    up = stranger.apothic("up", "--port", "0", "--detach", "--json").ok()
    second = stranger.apothic("up", "--port", "0", "--json")
    down = stranger.apothic("down", "--json").ok()

    assert set(up.json) == {"url", "data", "pid", "version", "worker", "endpoint"}
    assert (up.json["endpoint"], up.json["url"][:17], up.err) == (str(endpoint), "http://127.0.0.1:", "")
    assert (second.status, second.error["code"], second.out) == (6, "data_folder_busy", "")
    assert down.json == {"data": up.json["data"], "stopped": ["cloud"]}


def test_a_process_that_got_the_number_of_a_dead_cloud_is_not_taken_for_it(own_cloud, stranger):
    endpoint = stranger.home / ".apothic/endpoint.json"
    endpoint.parent.mkdir()
    endpoint.write_text(json.dumps({"url": "http://127.0.0.1:1", "key": "lk_dead", "pid": os.getpid(), "started": 1}))
    cloud = own_cloud()

    assert f"find it by {endpoint}" in cloud.told
    assert json.loads(endpoint.read_text())["pid"] == cloud.pid


def test_a_live_cloud_keeps_its_endpoint_file(own_cloud, stranger):
    first = own_cloud()
    endpoint = stranger.home / ".apothic/endpoint.json"
    up = stranger.apothic("up", "--port", "0", "--detach", "--data", stranger.home / "other").ok()
    named = json.loads(endpoint.read_text())["pid"]
    stranger.apothic("down", "--data", stranger.home / "other").ok()

    assert "names another running cloud" in up.err
    assert named == first.pid == json.loads(endpoint.read_text())["pid"]


def test_a_start_waits_for_no_down_and_a_second_down_kills_no_first(stranger):
    data = stranger.home / "data"
    data.mkdir(mode=0o700)
    with (data / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        down = stranger.apothic("down", "--data", data, "--json")
        up = stranger.apothic("up", "--port", "0", "--data", data)

    assert (down.status, down.error["code"]) == (6, "data_folder_busy")
    assert (up.status, says_no_traceback(up)) == (6, True)
    assert "when `apothic down` has ended" in up.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run the database as somebody else")
def test_as_root_the_database_runs_as_another_user_and_down_ends_what_is_left_of_it():
    home = Path(tempfile.mkdtemp(prefix="apothic-"))
    home.chmod(0o755)
    person = Person(home)
    try:
        cloud = RunningCloud(person, "--pg-user", "nobody", "--no-worker")
        owner = (cloud.data / "postgres/data").stat().st_uid
        mode = cloud.data.stat().st_mode & 0o777
        cloud.kill_everything()
        down = person.apothic("down", "--json").ok()
        again = RunningCloud(person, "--pg-user", "nobody", "--no-worker")
        stopped = again.stop()
        home.chmod(0o700)
        closed = person.apothic("up", "--port", "0", "--pg-user", "nobody")
    finally:
        person.apothic("down")
        shutil.rmtree(home)
        shutil.rmtree(person.tmp)

    assert (owner, mode) == (NOBODY, 0o710)
    assert down.json["stopped"] == ["database"]
    assert stopped[0] == 0
    assert (closed.status, says_no_traceback(closed)) == (1, True)
    assert f"the user nobody cannot come to {cloud.data}, because {home} is closed to it" in closed.err


def test_a_cloud_that_was_killed_is_said_to_be_away(own_cloud, stranger):
    cloud = own_cloud()
    cloud.kill_everything()
    ran = stranger.apothic("app", "list")
    own_cloud().stop()

    assert (ran.status, says_no_traceback(ran)) == (9, True)
    assert "`apothic up`" in ran.err
