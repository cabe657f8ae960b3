"""The embedded server: start, restart, adoption, recovery and refusals, under every identity this machine allows."""

import asyncio
import json
import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apothic_server.store.binaries import find_binaries
from apothic_server.store.connection import connect
from apothic_server.store.errors import StoreError
from apothic_server.store.folder import LOG_BYTES_MAX
from apothic_server.store.launcher import EmbeddedPostgres
from apothic_server.store.postmaster import find_postmaster, processes_in, read_pid_file
from apothic_server.testing.postgres import run_sql

pytestmark = pytest.mark.anyio

CHILD = Path(__file__).with_name("launcher_child.py")
NOBODY = pwd.getpwnam("nobody").pw_uid
IS_ROOT = os.geteuid() == 0
IDENTITIES = ["user-namespace", "pg-user", "plain"] if IS_ROOT else ["plain"]


class Owner:
    """A process that owns a server; see launcher_child.py."""

    def __init__(self, folder, identity, programs):
        self.folder = folder
        self.uid = NOBODY if identity == "plain" and IS_ROOT else os.geteuid()
        pg_user = "nobody" if identity == "pg-user" else ""
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), str(folder), str(self.uid), pg_user, str(programs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.told = self.hear()

    def hear(self):
        return json.loads(self.process.stdout.readline())

    @property
    def postmaster(self):
        return find_postmaster(self.folder / "data")

    def stop(self):
        self.process.stdin.write(b"stop\n")
        self.process.stdin.flush()
        assert self.hear() == {"stopped": True}
        self.end()

    def kill(self):
        """Kill the owner and everything in its process group, as a terminal or a supervisor does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.end()

    def end(self):
        self.process.wait(20)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(params=IDENTITIES)
def make_owner(request, folder, programs):
    owners = []
    if request.param != "user-namespace" and IS_ROOT:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, NOBODY, -1)
    if request.param == "pg-user":
        os.chown(folder, os.geteuid(), -1)

    def make(chosen=folder):
        owners.append(Owner(chosen, request.param, programs))
        return owners[-1]

    yield make
    for owner in owners:
        if owner.process.poll() is None:
            owner.kill()


@pytest.fixture
async def server(folder):
    made = EmbeddedPostgres(folder)
    yield made
    await made.stop()


async def query(address, sql):
    connection = await connect(address, name="test", deadline_s=10.0)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def refusal(server):
    with pytest.raises(StoreError) as caught:
        await server.start()
    return caught.value.code


async def gone(pid):
    """Wait for the end of a process that need not be ours."""
    descriptor = os.pidfd_open(pid)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), 20)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def listing(folder):
    return {path: path.lstat().st_mode for path in folder.rglob("*")}


def test_each_identity_makes_a_store_stops_and_starts_it_again(make_owner, place, folder):
    new = place / "new"
    new.mkdir()
    os.chown(new, folder.stat().st_uid, -1)
    for _ in range(2):
        owner = make_owner(new)
        assert "host" in owner.told, owner.told
        assert owner.postmaster.state == "ready"
        owner.stop()

        assert processes_in(new / "data") == []
        assert not (new / "data" / "postmaster.pid").exists()
    assert {(new / name).stat().st_uid for name in ("data", "socket", "password")} == {(folder / "data").stat().st_uid}
    assert {path.stat().st_mode & 0o077 for path in new.iterdir()} == {0}


def test_a_server_whose_owner_was_killed_is_adopted(make_owner, folder):
    first = make_owner()
    pid = first.postmaster.pid
    first.kill()

    second = make_owner()

    assert second.told == first.told
    assert second.postmaster.pid == pid
    second.stop()
    assert processes_in(folder / "data") == []


def test_a_server_whose_folder_was_moved_is_started_again(make_owner, folder):
    first = make_owner()
    pid = first.postmaster.pid
    first.kill()
    moved = folder.rename(folder.with_name("moved"))

    second = make_owner(moved)

    assert second.told != first.told
    assert second.postmaster.pid != pid
    second.stop()
    assert processes_in(moved / "data") == []


def test_a_killed_server_is_started_again(make_owner, folder):
    first = make_owner()
    pid = first.postmaster.pid
    os.kill(pid, signal.SIGKILL)
    first.kill()

    second = make_owner()

    assert second.told == first.told
    assert second.postmaster.pid != pid
    second.stop()


def test_a_server_maps_no_file_that_its_death_would_leave_outside_of_its_folder(make_owner):
    owner = make_owner()

    mapped = Path(f"/proc/{owner.postmaster.pid}/maps").read_text()

    assert "/pg_dynshmem/mmap." in mapped
    assert "/PostgreSQL." not in mapped
    owner.stop()


def test_a_second_cloud_on_the_same_folder_is_refused(make_owner, folder):
    first = make_owner()

    second = make_owner()

    assert second.told["code"] == "data_folder_busy"
    second.end()
    assert first.postmaster is not None
    first.stop()


def test_nothing_above_the_folder_is_changed(make_owner, folder):
    above = [*folder.parents]
    before = [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in above]

    make_owner().stop()

    assert [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in above] == before


def test_no_process_of_the_server_listens_on_tcp(make_owner, folder):
    owner = make_owner()
    tables = [Path(f"/proc/{owner.postmaster.pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    listening = {line.split()[9] for table in tables for line in table.splitlines()[1:] if line.split()[3] == "0A"}
    files = [file for pid in processes_in(folder / "data") for file in Path(f"/proc/{pid}/fd").iterdir()]
    links = [str(file.readlink()) for file in files]
    sockets = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}

    assert sockets
    assert not sockets & listening
    owner.stop()


async def test_what_was_committed_survives_a_killed_server_with_a_busy_session(server, folder):
    address = await server.start()
    await run_sql(address, "CREATE TABLE kept AS SELECT 7 AS number")
    busy = await connect(address, name="test", deadline_s=60.0)
    sleeping = asyncio.create_task(busy.execute("SELECT pg_sleep(60)"))
    backend = busy.get_server_pid()
    lost = find_postmaster(folder / "data").pid
    ended = asyncio.create_task(server.ended())
    await asyncio.sleep(0)
    assert not ended.done()
    os.kill(backend, signal.SIGSTOP)
    os.kill(lost, signal.SIGKILL)
    await asyncio.wait_for(ended, 10)
    await gone(lost)
    assert not server.is_running
    await server.stop()

    address = await server.start()

    assert await query(address, "SELECT number FROM kept") == 7
    assert backend not in processes_in(folder / "data")
    with pytest.raises(Exception, match="closed"):
        await sleeping


async def test_a_pid_file_that_names_another_program_is_stale(server, folder):
    await server.start()
    told = (folder / "data" / "postmaster.pid").read_text()
    await server.stop()
    (folder / "data" / "postmaster.pid").write_text(told.replace(told.split()[0], str(os.getpid()), 1))

    address = await server.start()

    assert await query(address, "SELECT 1") == 1
    assert read_pid_file(folder / "data").pid != os.getpid()


async def test_an_interrupted_first_start_is_made_good(place):
    folder = place / "new"
    server = EmbeddedPostgres(folder)
    starting = asyncio.create_task(server.start())
    while not (folder / "data.new" / "PG_VERSION").exists():  # noqa: ASYNC110 - another program's file tells no event
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not (folder / "data").exists()

    address = await server.start()

    assert await query(address, "SELECT 1") == 1
    assert not (folder / "data.new").exists()
    await server.stop()


async def test_starting_and_stopping_twice_or_out_of_order_is_fine(server):
    await server.stop()
    await server.ended()
    assert not server.is_running
    assert await server.start() == await server.start()
    assert server.is_running
    await server.stop()
    await server.stop()
    assert not server.is_running


async def test_a_wrong_password_and_other_users_do_not_get_in(server):
    address = await server.start()

    for user in ("apothic", "postgres", "root"):
        other = type(address)(host=address.host, user=user, password="wrong", database="apothic")
        with pytest.raises(Exception, match="away"):
            await query(other, "SELECT 1")


async def test_the_server_says_what_durability_needs(server):
    address = await server.start()

    shown = {name: await query(address, f"SHOW {name}") for name in ("fsync", "data_checksums", "listen_addresses")}
    assert shown == {"fsync": "on", "data_checksums": "on", "listen_addresses": ""}
    assert await query(address, "SHOW server_encoding") == "UTF8"
    assert await query(address, "SELECT datcollate FROM pg_database WHERE datname = 'apothic'") == "C"


async def test_a_running_server_that_refuses_our_password_is_left_alone(folder, programs):
    owner = Owner(folder, "own", programs)
    pid = owner.postmaster.pid
    owner.kill()
    right = (folder / "password").read_text()
    (folder / "password").write_text("another")

    assert await refusal(EmbeddedPostgres(folder)) == "data_folder_busy"
    assert find_postmaster(folder / "data").pid == pid
    (folder / "password").write_text(right)
    adopting = EmbeddedPostgres(folder)
    await adopting.start()
    await adopting.stop()


async def test_a_folder_of_another_user_is_refused(folder):
    if IS_ROOT:
        os.chown(folder, NOBODY, -1)
    strange = folder if IS_ROOT else Path("/etc")

    assert await refusal(EmbeddedPostgres(strange)) == "data_folder_owner"


async def test_data_of_another_user_is_refused(folder):
    if not IS_ROOT:
        # Only root can have made it; the folder itself is what a plain user meets then.
        assert await refusal(EmbeddedPostgres(Path("/etc"))) == "data_folder_owner"
        return
    assert await refusal(EmbeddedPostgres(folder, pg_user="nobody")) == "data_folder_owner"
    os.chown(folder / "data", NOBODY, -1)
    assert await refusal(EmbeddedPostgres(folder)) == "data_folder_owner"


async def test_a_folder_with_something_else_in_it_is_refused_and_left_as_it_was(place):
    folder = place / "other"
    folder.mkdir(mode=0o755)
    (folder / "thesis.txt").write_text("years of work")
    before = listing(folder.parent)

    assert await refusal(EmbeddedPostgres(folder)) == "data_folder_foreign"
    assert listing(folder.parent) == before


async def test_data_without_its_password_is_refused(server, folder):
    (folder / "password").unlink()

    assert await refusal(server) == "data_folder_foreign"


async def test_data_of_another_version_is_refused(server, folder):
    (folder / "data" / "PG_VERSION").write_text("99\n")

    assert await refusal(server) == "data_folder_version"


async def test_a_file_in_the_folders_place_is_refused(place):
    (place / "file").write_text("")

    assert await refusal(EmbeddedPostgres(place / "file")) == "data_folder_unusable"


async def test_an_unknown_user_is_refused(place):
    folder = place / "new"
    assert await refusal(EmbeddedPostgres(folder, pg_user="no-such-user")) == "store_identity"
    assert await refusal(EmbeddedPostgres(folder, pg_user="root")) == "store_identity"
    assert not folder.exists()


async def test_a_failed_start_says_why_and_leaves_nothing_running(folder, server):
    broken = EmbeddedPostgres(folder, settings={"shared_buffers": "plenty"})
    with pytest.raises(StoreError, match="shared_buffers") as caught:
        await broken.start()

    assert caught.value.code == "store_start_failed"
    assert processes_in(folder / "data") == []
    assert await query(await server.start(), "SELECT 1") == 1


async def test_a_long_path_gets_a_short_socket_that_goes_with_the_server(place, folder):
    (place / ("long" * 20)).mkdir()
    server = EmbeddedPostgres(folder.rename(place / ("long" * 20) / "store"))
    address = await server.start()

    assert await query(address, "SELECT 1") == 1
    assert Path(address.host).stat().st_mode & 0o777 == 0o700
    await server.stop()
    assert not Path(address.host).exists()


async def test_a_path_with_spaces_quotes_and_commas_works(place):
    server = EmbeddedPostgres(place / 'a "b", c')
    address = await server.start()

    assert await query(address, "SELECT 1") == 1
    await server.stop()


async def test_the_log_keeps_its_bound_and_holds_no_statement(server, folder):
    address = await server.start()
    with pytest.raises(Exception, match="duplicate"):
        await run_sql(address, "CREATE TABLE one (secret text UNIQUE); INSERT INTO one VALUES ('hunter2'), ('hunter2')")
    with (folder / "postgres.log").open("ab") as log:
        log.write(b"x" * (LOG_BYTES_MAX + 1))

    server.trim_log()

    assert (folder / "postgres.log").stat().st_size == 0
    assert (folder / "postgres.log.1").stat().st_size == LOG_BYTES_MAX
    with pytest.raises(Exception, match="syntax"):
        await run_sql(address, "SELEKT 'hunter2'")
    written = (folder / "postgres.log").read_text()
    assert "syntax error" in written
    assert "hunter2" not in written


def test_programs_that_are_missing_or_too_old_are_refused(place):
    for name in ("postgres", "initdb"):
        (place / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n")
        (place / name).chmod(0o755)

    for folder in (place, place / "absent"):
        with pytest.raises(StoreError) as caught:
            find_binaries(folder)
        assert caught.value.code == "store_binaries_missing"
