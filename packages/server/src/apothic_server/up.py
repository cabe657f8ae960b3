"""`apothic up` and `apothic down`: start and stop a cloud on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apothic.wire.limits import CPU_MAX, LARGE_VALUES_GB_MAX, MEMORY_MB_MAX
from apothic.wire.version import VERSION
from apothic_server import identity
from apothic_server.detached import detach_cloud
from apothic_server.endpoint import check as check_endpoint
from apothic_server.leftovers import end_leftovers, stop_process
from apothic_server.options import (
    FiniteRange,
    NamedFolder,
    check,
    data_folder,
    data_option,
    home,
    public_address,
    shared_folder,
)
from apothic_server.settings import (
    DEFAULT_DISK_FLOOR_MB,
    DEFAULT_GRACE_S,
    DEFAULT_HOST,
    DEFAULT_LARGE_VALUES_GB,
    DEFAULT_PORT,
    Settings,
)
from apothic_server.telling import Form, tell, telling_failure

if TYPE_CHECKING:
    from apothic_server.running import Running

STOP_DEADLINE_S = 60.0
LOG_MAX = 16 * 1024 * 1024


@click.command()
@data_option
@click.option("--host", default=DEFAULT_HOST, show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@click.option("--behind-proxy", is_flag=True, help="Allow another address than loopback: a proxy in front does TLS.")
@click.option(
    "--database-url",
    envvar="APOTHIC_DATABASE_URL",
    help="Use this PostgreSQL (15 or later) instead of the embedded one.",
)
@click.option(
    "--shared",
    type=NamedFolder(path_type=Path, file_okay=False),
    envvar="APOTHIC_SHARED",
    help="Folder with secrets and blobs that all servers of this cloud use (default: the data folder).",
)
@click.option("--public-url", help="Where workers and other servers reach this one (default: where it listens).")
@click.option("--no-worker", is_flag=True, help="Run no worker beside this server.")
@click.option("--pg-user", help="As root: run the embedded PostgreSQL as this user.")
@click.option(
    "--executor", type=click.Choice(["sandbox", "process"]), help="How user code is isolated (default: sandbox)."
)
@click.option("--trust-user-code", is_flag=True, help="Allow the process executor as root.")
@click.option("--cpus", type=FiniteRange(0.1, CPU_MAX), help="Processors that jobs may use (default: all).")
@click.option("--memory-mb", type=click.IntRange(64, MEMORY_MB_MAX), help="MiB of memory that jobs may use.")
@click.option(
    "--endpoint",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where clients of this user find the cloud (default: ~/.apothic/endpoint.json).",
)
@click.option("--no-endpoint", is_flag=True, help="Write no endpoint file.")
@click.option(
    "--disconnect-grace-s",
    default=DEFAULT_GRACE_S,
    show_default=True,
    type=FiniteRange(3, 86_400),
    help="Seconds that a worker on another machine may be silent before its jobs run elsewhere.",
)
@click.option(
    "--disk-floor-mb",
    default=DEFAULT_DISK_FLOOR_MB,
    show_default=True,
    type=click.IntRange(0, 1_048_576),
    help="Take no new work, and stop what writes most, while less is free on the disk of the data folder.",
)
@click.option(
    "--large-values-gb",
    default=DEFAULT_LARGE_VALUES_GB,
    show_default=True,
    type=click.IntRange(5, LARGE_VALUES_GB_MAX),
    help="GiB of large arguments and results that each organisation may keep.",
)
@click.option("--detach", "-d", is_flag=True, help="Return when the cloud is ready and leave it running.")
@click.option("--commit-delay-ms", type=FiniteRange(0, 60_000), default=0.0, hidden=True)
@click.option("--ready-fd", type=int, hidden=True)
@click.pass_obj
def up(
    form: Form,
    data: Path | None,
    host: str,
    port: int,
    behind_proxy: bool,
    database_url: str | None,
    shared: Path | None,
    public_url: str | None,
    no_worker: bool,
    pg_user: str | None,
    executor: str | None,
    trust_user_code: bool,
    cpus: float | None,
    memory_mb: int | None,
    endpoint: Path | None,
    no_endpoint: bool,
    disconnect_grace_s: float,
    disk_floor_mb: int,
    large_values_gb: int,
    detach: bool,
    commit_delay_ms: float,
    ready_fd: int | None,
) -> None:
    """Start a cloud on this machine and keep it running until Ctrl-C.

    The first start makes everything it needs: a PostgreSQL of its own, an org, a key, a worker. Nothing is exported:
    SDK and CLI of the same user find the cloud by the endpoint file.
    """
    if ready_fd is not None:
        # Whoever waits for the end of this pipe must not wait for the children that we start.
        os.set_inheritable(ready_fd, False)
    settings = Settings(
        data=data_folder(data),
        host=host,
        port=port,
        behind_proxy=behind_proxy,
        database_url=database_url,
        shared=shared_folder(shared, database_url),
        public_url=public_address(public_url),
        has_worker=not no_worker,
        pg_user=pg_user,
        executor=executor,
        trust_user_code=trust_user_code,
        cpus=cpus,
        memory_mb=memory_mb,
        endpoint=None if no_endpoint else (endpoint or home() / "endpoint.json").absolute(),
        disconnect_grace_s=disconnect_grace_s,
        disk_floor_mb=disk_floor_mb,
        large_values_gb=large_values_gb,
        commit_delay_s=commit_delay_ms / 1000,
    )
    with telling_failure(ready_fd):
        check(settings)
        if settings.endpoint is not None:
            check_endpoint(settings.endpoint)
        with identity.made_folder(settings.data, guest=pg_user):
            if detach:
                detach_cloud(settings, form)
                return
            with identity.locked(settings.data):
                _run(settings, form, ready_fd)


@click.command()
@data_option
@click.pass_obj
def down(form: Form, data: Path | None) -> None:
    """Stop the cloud that `apothic up` runs in this data folder; jobs in progress get 15 s."""
    folder = data_folder(data)
    pid = identity.lock_holder(folder)
    if pid is not None:
        if not stop_process(pid, STOP_DEADLINE_S):
            raise click.ClickException(f"the cloud (pid {pid}) did not stop within {STOP_DEADLINE_S:.0f} s")
        _say_stopped(form, folder, ["cloud"], f"stopped the cloud in {folder}")
        return
    left: list[str] = []
    if folder.is_dir():
        with telling_failure(None), identity.locked(folder, is_cloud=False):
            left = end_leftovers(folder, STOP_DEADLINE_S)
    what = " and the ".join(left)
    said = f"no cloud ran in {folder}; stopped the {what} that was left" if left else f"no cloud runs in {folder}"
    _say_stopped(form, folder, left, said)


def _say_stopped(form: Form, folder: Path, stopped: list[str], said: str) -> None:
    if form.is_for_programs:
        form.print_document({"data": str(folder), "stopped": stopped})
    else:
        click.echo(said, err=True)


def _run(settings: Settings, form: Form, ready_fd: int | None) -> None:
    # Imported late: `apothic --help` and `apothic down` stay quick.
    import uvloop

    from apothic_server import failpoints, logs
    from apothic_server.listener import bind

    failpoints.arm(os.environ)
    bound = bind(settings.host, settings.port)
    with bound, _open_log(settings.data).open("a", buffering=1) as log:
        logs.configure(log, is_terminal=False)
        uvloop.run(_serve(settings, bound, form, ready_fd))


async def _serve(settings: Settings, bound: object, form: Form, ready_fd: int | None) -> None:
    from socket import socket

    from apothic_server.running import running

    assert isinstance(bound, socket)
    began = time.monotonic()
    _collect_rarely()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    async with running(settings, bound) as cloud:
        document = _document(settings, cloud)
        if form.is_for_programs and ready_fd is None:
            form.print_document(document)
            sys.stdout.flush()
        else:
            _say_ready(settings, cloud, time.monotonic() - began)
        tell(ready_fd, f"ready {json.dumps(document)}")
        await _until_stop(stop, cloud.store.failed)
        if not form.is_for_programs:
            _say("stopping: jobs in progress get 15 s …")
    if not form.is_for_programs:
        _say("stopped")
    cloud.store.check()


def _document(settings: Settings, cloud: Running) -> dict[str, Any]:
    """Return what programs are told of a cloud that is ready."""
    endpoint = str(settings.endpoint) if cloud.is_named else None
    found = {"url": cloud.url, "data": str(settings.data), "pid": os.getpid(), "version": VERSION}
    return {**found, "worker": cloud.machine, "endpoint": endpoint}


def _collect_rarely() -> None:
    """Keep the garbage collector away from what lives long: imported code for ever, unfinished jobs mostly.

    Reading unfinished jobs at a start takes half the processor time this way (`benchmarks/restart.py`).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _until_stop(stop: asyncio.Event, failed: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in (stop, failed)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _say_ready(settings: Settings, cloud: Running, took_s: float) -> None:
    lines = [
        f"Apothic {VERSION} is ready ({took_s:.1f} s)",
        f"  API     {cloud.url}",
        f"  data    {settings.data}",
        f"  worker  {cloud.machine}",
    ]
    if not cloud.disk.takes_new:
        lines.append(f"  disk    less than {settings.disk_floor_mb} MiB are free: no new work is taken until there are")
    if cloud.is_named:
        lines.append(f"  client  SDK and CLI find it by {settings.endpoint}; nothing to export")
    elif settings.endpoint is not None:
        lines.append(f"  client  {settings.endpoint} names another running cloud; use --base-url or APOTHIC_BASE_URL")
    _say("\n".join([*lines, "Ctrl-C stops it."]))


def _say(text: str) -> None:
    """Tell the terminal, if it is still there."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def _open_log(data: Path) -> Path:
    path = data / "server.log"
    if path.exists() and path.stat().st_size > LOG_MAX:
        path.replace(data / "server.log.1")
    path.touch(mode=0o600)
    return path
