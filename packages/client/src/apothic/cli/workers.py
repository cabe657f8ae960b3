"""`apothic worker`: the machines that execute, and those that join from other hosts."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from apothic.cli.confirming import confirm, yes_option
from apothic.cli.console import print_fields, print_listed, print_table, print_text, say
from apothic.cli.finite import FiniteRange
from apothic.cli.refreshing import show_list, watch_option
from apothic.cli.settings import Settings, common_options
from apothic.errors import NotFoundError
from apothic.wire.limits import (
    CPU_MAX,
    DISK_FLOOR_MB_MAX,
    JOIN_TOKEN_S_DEFAULT,
    JOIN_TOKEN_S_MAX,
    JOIN_TOKEN_S_MIN,
    MEMORY_MB_MAX,
)
from apothic.wire.version import VERSION

if TYPE_CHECKING:
    from apothic._workers import EnrolledWorker, WorkerInfo

PROGRAM = "apothic_worker.cli"


class WorkerMissing(click.ClickException):
    """This machine is to be a worker and lacks the program."""

    def __init__(self) -> None:
        super().__init__(
            "`apothic worker join` needs the worker, which is not installed: "
            f"run `pip install apothic-worker=={VERSION}`."
        )


@click.group()
@common_options
def worker() -> None:
    """Workers: the machines that execute jobs."""


@worker.command()
@click.option(
    "--life-s",
    type=click.IntRange(JOIN_TOKEN_S_MIN, JOIN_TOKEN_S_MAX),
    default=JOIN_TOKEN_S_DEFAULT,
    show_default=True,
    help="Seconds until the token expires.",
)
@click.option("--list", "lists", is_flag=True, help="List the tokens that nobody has joined with yet instead.")
@click.option("--revoke", metavar="ID", help="End a token that nobody has joined with yet instead.")
@common_options
@click.pass_obj
def token(settings: Settings, life_s: int, lists: bool, revoke: str | None) -> None:
    """Print a token with which one worker can join. It is shown once and works once."""
    if lists and revoke is not None:
        raise click.UsageError("--list shows tokens and --revoke ends one. Give one of them.")
    if lists:
        _list_tokens(settings)
        return
    if revoke is not None:
        _revoke_token(settings, revoke)
        return
    made = settings.client().make_join_token(life_s=life_s)
    if settings.is_for_programs:
        settings.print_document(asdict(made))
        return
    print_text(made.token)
    say(f"Works once, until {made.expires_at}; `apothic worker token --revoke {made.join_token_id}` ends it before.")
    say("On the other host, with the token in a file that only you can read:")
    say(f"  apothic worker join --server {settings.client().base_url} --token-file FILE")


@worker.command()
@click.option("--server", metavar="URL", help="Address of the cloud; known once it has joined.")
@click.option("--token-file", metavar="FILE", help="File with the join token, mode 0600; - reads standard input.")
@click.option("--name", metavar="NAME", help="Name of this worker in the cloud (default: the host's).")
@click.option("--data", metavar="DIR", help="Folder of this worker alone (default: ~/.apothic/worker).")
@click.option("--executor", type=click.Choice(["sandbox", "process"]), help="How user code is isolated.")
@click.option("--cpus", type=FiniteRange(0.1, CPU_MAX), help="Processors that jobs may use (default: all).")
@click.option("--memory-mb", type=click.IntRange(64, MEMORY_MB_MAX), help="MiB of memory that jobs may use.")
@click.option(
    "--disk-floor-mb",
    type=click.IntRange(0, DISK_FLOOR_MB_MAX),
    help="Stop what writes most while less is free; 0 never.",
)
@click.option("--trust-user-code", is_flag=True, help="Allow the process executor.")
@click.option("--insecure", is_flag=True, help="Send the token over plain http to another host.")
@common_options
@click.pass_obj
def join(settings: Settings, **options: Any) -> None:
    """Have this machine join a cloud and work for it until Ctrl-C. The same command without a token starts it again."""
    if find_spec("apothic_worker") is None:
        raise WorkerMissing
    for name in ("data", "name", "server", "token_file"):
        if options[name] == "":
            raise click.BadParameter(
                "is empty; leave it out or name something.", param_hint=f"--{name}".replace("_", "-")
            )
    usual = Path(os.environ.get("APOTHIC_HOME", "~/.apothic")).expanduser() / "worker"
    options["data"] = str(usual) if options["data"] is None else options["data"]
    _become([*_flags(options), *(["--json"] if settings.is_for_programs else [])])


@worker.command("list")
@watch_option
@common_options
@click.pass_obj
def list_workers(settings: Settings, watches: bool) -> None:
    """List the workers that have joined, and those beside servers."""
    client = settings.client()
    show_list(
        settings,
        lambda: _rows(client.list_enrolled_workers(), client.list_workers()),
        ("WORKER", "STATUS", "JOBS", "HOST", "OFFERS", "JOINED"),
        _cells,
        empty="No workers: `apothic worker token` makes a token with which one can join.",
        watches=watches,
    )


@worker.command()
@click.argument("name", metavar="NAME")
@common_options
@click.pass_obj
def drain(settings: Settings, name: str) -> None:
    """Give a worker no new work; what it runs goes on to its end."""
    _tell(settings, settings.client().drain_worker(name))


@worker.command()
@click.argument("name", metavar="NAME")
@common_options
@click.pass_obj
def resume(settings: Settings, name: str) -> None:
    """Give a drained worker work again."""
    _tell(settings, settings.client().resume_worker(name))


@worker.command()
@click.argument("name", metavar="NAME")
@yes_option
@common_options
@click.pass_obj
def remove(settings: Settings, name: str, yes: bool) -> None:
    """End a worker's credential and its link at once; what it still runs is lost and tried again elsewhere."""
    client = settings.client()
    if not yes and all(one.name != name for one in client.list_enrolled_workers()):
        raise NotFoundError(f"No worker named {name} has joined.", code="not_found")
    confirm(settings, f"Remove worker {name}? What it still runs is lost; `apothic worker drain` avoids that.", yes=yes)
    _tell(settings, client.remove_worker(name))


def _list_tokens(settings: Settings) -> None:
    found = settings.client().list_join_tokens()
    if settings.is_for_programs:
        print_listed([asdict(one) for one in found], is_jsonl=settings.is_jsonl)
        return
    if not found:
        say("No join tokens wait to be used.")
        return
    print_table(("TOKEN", "MADE", "EXPIRES"), [(one.join_token_id, one.created_at, one.expires_at) for one in found])


def _revoke_token(settings: Settings, join_token_id: str) -> None:
    found = settings.client().revoke_join_token(join_token_id)
    if settings.is_for_programs:
        settings.print_document(asdict(found))
        return
    say(f"No worker can join with {found.join_token_id} any more.")


def _become(arguments: list[str]) -> NoReturn:
    """Be the worker's own program from here on: signals and the exit status are its own."""
    sys.stdout.flush()
    # -P: modules of the folder in which somebody starts a worker are none of ours.
    os.execv(sys.executable, [sys.executable, "-P", "-m", PROGRAM, "join", *arguments])  # noqa: S606


def _flags(options: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            found.append(flag)
        elif value not in (None, False):
            found.append(f"{flag}={value}")
    return found


def _rows(enrolled: tuple[EnrolledWorker, ...], starts: tuple[WorkerInfo, ...]) -> list[dict[str, Any]]:
    """Return one row for each worker: those that joined by name, then those beside servers that live."""
    machines = {start.worker_id: asdict(start.machine) for start in starts}
    rows = [{**asdict(one), "enrolled": True, "machine": machines.get(one.worker_id or "")} for one in enrolled]
    beside = [start for start in starts if not start.enrolled and start.status in ("live", "impaired")]
    return rows + [_beside_server(start) for start in beside]


def _beside_server(start: WorkerInfo) -> dict[str, Any]:
    return {
        "name": start.name,
        "status": start.status,
        "draining": False,
        "jobs": None,
        "joined_at": None,
        "worker_id": start.worker_id,
        "enrolled": False,
        "machine": asdict(start.machine),
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    machine, host, offers = row["machine"], "-", "-"
    if machine is not None:
        host = machine["host"]
        offers = f"{machine['cpus']:g} cpu, {machine['memory_mb']} MiB, Python {', '.join(machine['pythons'])}"
    return (row["name"], row["status"], _shown(row["jobs"]), host, offers, row["joined_at"] or "beside a server")


def _shown(jobs: int | None) -> str:
    return "-" if jobs is None else str(jobs)


def _tell(settings: Settings, found: EnrolledWorker) -> None:
    if settings.is_for_programs:
        settings.print_document(asdict(found))
        return
    print_fields({"worker": found.name, "status": found.status, "jobs": _shown(found.jobs)})
