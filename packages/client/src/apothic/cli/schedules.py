"""`apothic schedule`: functions that run by themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from apothic.cli import names
from apothic.cli.console import print_fields, print_table, print_text
from apothic.cli.refreshing import show_list, watch_option
from apothic.cli.settings import Settings, common_options
from apothic.cli.targets import full_name, nothing_named
from apothic.wire.ids import parse_record_id

if TYPE_CHECKING:
    from apothic._schedules import ScheduleInfo


@click.group()
@common_options
def schedule() -> None:
    """Schedules: functions that run by themselves. TARGET is APP::FUNCTION or a schedule's id."""


@schedule.command("list")
@click.option("--app", metavar="APP", help="Only those of this app.", shell_complete=names.apps)
@watch_option
@common_options
@click.pass_obj
def list_schedules(settings: Settings, app: str | None, watches: bool) -> None:
    """List the schedules, in words, with the next time of each (UTC)."""
    client = settings.client()
    show_list(
        settings,
        lambda: client.list_schedules(app),
        ("SCHEDULE", "STATUS", "RUNS", "NEXT", "LAST"),
        lambda one: (full_name(one.app, one.function), one.status, one.words, _first(one.next), _last(one)),
        empty='No schedules: `@app.function(schedule=Cron("0 7 * * *"))` makes one with the next deploy.',
        watches=watches,
    )


@schedule.command()
@click.argument("target", metavar="TARGET", shell_complete=names.functions_of_apps)
@common_options
@click.pass_obj
def status(settings: Settings, target: str) -> None:
    """Show a schedule: when it runs, the next five times, its newest jobs."""
    _show(settings, settings.client().get_schedule(_id(settings, target)))


@schedule.command()
@click.argument("target", metavar="TARGET", shell_complete=names.functions_of_apps)
@common_options
@click.pass_obj
def pause(settings: Settings, target: str) -> None:
    """Let a schedule make no jobs until it is resumed; running ones go on."""
    _show(settings, settings.client().pause_schedule(_id(settings, target)))


@schedule.command()
@click.argument("target", metavar="TARGET", shell_complete=names.functions_of_apps)
@common_options
@click.pass_obj
def resume(settings: Settings, target: str) -> None:
    """Let a paused schedule go on; times that passed meanwhile are left out."""
    _show(settings, settings.client().resume_schedule(_id(settings, target)))


@schedule.command()
@click.argument("target", metavar="TARGET", shell_complete=names.functions_of_apps)
@common_options
@click.pass_obj
def run(settings: Settings, target: str) -> None:
    """Make a job of a schedule at once and print its id; its own times stay."""
    job_id = settings.client().run_schedule(_id(settings, target))
    if settings.is_for_programs:
        settings.print_document({"job_id": job_id})
        return
    print_text(job_id)


def _id(settings: Settings, target: str) -> str:
    """Return the id of a target, which is looked up when it is a name."""
    if parse_record_id(target, "schedules") is not None:
        return target
    known = {full_name(one.app, one.function): one.schedule_id for one in settings.client().list_schedules()}
    if target in known:
        return known[target]
    raise nothing_named("schedule", target, known, "apothic schedule list")


def _show(settings: Settings, found: ScheduleInfo) -> None:
    if settings.is_for_programs:
        settings.print_document(asdict(found))
        return
    fields = {
        "schedule": full_name(found.app, found.function),
        "status": found.status,
        "runs": found.words,
        "next (UTC)": ", ".join(found.next) or "never",
        "waiting since": found.waiting_due,
        "while it runs": {
            "skip": "later runs are left out",
            "queue_one": "one later run waits",
            "allow": "later runs run too",
            "cancel_previous": "a later run cancels it",
        }.get(found.overlap, found.overlap),
        "missed runs": {"latest": "the newest is made up for", "skip": "are left out", "all": "are made up for"}.get(
            found.catch_up, found.catch_up
        ),
        "late by up to": f"{found.jitter_s:g} s" if found.jitter_s else None,
        "deployment": found.deployment_id,
        "id": found.schedule_id,
    }
    shown = {name: value for name, value in fields.items() if value is not None}
    print_fields(shown)
    if found.runs:
        print_text("")
        print_table(
            ("JOB", "STATUS", "DUE", "MADE"),
            [(run.job_id, run.status, run.due_at or "by hand", run.created_at) for run in found.runs],
        )


def _first(times: tuple[str, ...]) -> str:
    return times[0] if times else "-"


def _last(one: ScheduleInfo) -> str:
    return f"{one.runs[0].status} {one.runs[0].created_at}" if one.runs else "-"
