"""`apothic group`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from apothic.cli import ids, names
from apothic.cli.console import is_rich, print_fields, print_json, print_text, say
from apothic.cli.failures import Interrupted, Stopped
from apothic.cli.refreshing import show_list, watch_option
from apothic.cli.settings import Settings, common_options
from apothic.cli.targets import full_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from apothic._groups import GroupInfo
    from apothic.streams import StreamEvent

_CLEAR = "\r\x1b[2K"


@click.group()
@common_options
def group() -> None:
    """Groups: one function called for many items."""


@group.command("list")
@click.option("--app", metavar="APP", help="Only groups of this app.", shell_complete=names.apps)
@click.option("--function", metavar="FUNCTION", help="Only groups of functions with this name.")
@click.option("--status", metavar="STATUS", help="Only groups with this status, for example running.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Most groups to list.")
@watch_option
@common_options
@click.pass_obj
def list_groups(settings: Settings, watches: bool, **filters: Any) -> None:
    """List groups, newest first."""
    client = settings.client()
    show_list(
        settings,
        lambda: client.list_groups(**filters),
        ("GROUP", "FUNCTION", "STATUS", "ENDED", "FAILED", "CREATED", "FINISHED"),
        lambda g: (
            g.id, full_name(g.app, g.function_name), g.status, _ended(g), str(_failed(asdict(g.counts))), g.created_at,
            g.finished_at or "-",
        ),
        empty="No such groups.",
        watches=watches,
    )  # fmt: skip


@group.command()
@click.argument("group_id", metavar="ID", callback=ids.group_id)
@common_options
@click.pass_obj
def status(settings: Settings, group_id: str) -> None:
    """Show how far a group is, and why when it waits or failed."""
    found = settings.client().get_group(group_id)
    if settings.is_for_programs:
        settings.print_document(asdict(found))
        return
    fields = {
        "group": found.id,
        "function": full_name(found.app, found.function_name),
        "status": found.status,
        "items": _words({"counts": asdict(found.counts), "items": found.items, "total": found.total}),
        "waits because": found.waiting_reason,
        "error": f"{found.error.get('type')}: {found.error.get('message')}" if found.error else None,
        "key": found.key,
        "stops after": f"{found.stop_after} failed items" if found.stop_after else None,
        "created": found.created_at,
        "finished": found.finished_at,
        "deployment": found.deployment,
    }
    print_fields({name: value for name, value in fields.items() if value is not None})


@group.command()
@click.argument("group_id", metavar="ID", callback=ids.group_id)
@click.option("--last-index", type=click.IntRange(min=-1), metavar="N", help="Go on after the event with this index.")
@common_options
@click.pass_obj
def watch(settings: Settings, group_id: str, last_index: int | None) -> None:
    """Show how far a group is until it ends: on a terminal one line that is drawn again, elsewhere a line a second.

    Ends as the group did: 0, 100 when items failed, 103 when it was cancelled. Ctrl-C ends only the watching.
    """
    from apothic.cli.watching import Watching, exit_code_of, printer

    client = settings.client()
    documents: list[dict[str, Any]] = []
    is_live = is_rich() and not settings.is_for_programs
    shown = _drawer(printer(settings, documents)) if is_live else printer(settings, documents)
    watching = Watching(shown, last_index=-1 if last_index is None else last_index)
    try:
        watching.run(client.watch_group(group_id, last_index=last_index))
        ended = watching.status or client.get_group(group_id).status
    except KeyboardInterrupt:
        _print_watched(settings, group_id, None, documents, watching.last_index)
        place = f" --last-index {watching.last_index}" if watching.last_index >= 0 else ""
        text = f"Stopped watching; {group_id} goes on. `apothic group watch {group_id}{place}` reads on from here."
        raise Interrupted(text, job_id=None) from None
    _print_watched(settings, group_id, ended, documents, watching.last_index)
    if ended != "succeeded":
        raise Stopped(exit_code_of(ended))


def _print_watched(
    settings: Settings, group_id: str, status: str | None, events: list[dict[str, Any]], last_index: int
) -> None:
    if settings.is_json:
        print_json({"group_id": group_id, "status": status, "events": events, "last_index": last_index})


@group.command()
@click.argument("group_id", metavar="ID", callback=ids.group_id)
@click.option("--item", "items", type=click.IntRange(0, 9_999_999), multiple=True, metavar="N", help="Only this item.")
@common_options
@click.pass_obj
def cancel(settings: Settings, group_id: str, items: tuple[int, ...]) -> None:
    """Ask a group to end, or only some of its items; asking again, or after its end, changes nothing."""
    now = settings.client().cancel_group(group_id, list(items) or None)
    if settings.is_for_programs:
        settings.print_document({"group_id": group_id, "status": now.status})
    elif items:
        say(f"{len(items)} items of {group_id} were asked to end")
    else:
        print_text(f"{group_id} is {now.status}")


def _drawer(show: Callable[[StreamEvent], None]) -> Callable[[StreamEvent], None]:
    """Return what draws progress again and again on the same line, and shows anything else below it."""
    from apothic.cli.progress import fitted
    from apothic.cli.watching import as_line

    def draw(event: StreamEvent) -> None:
        if event.event == "group.progress":
            sys.stdout.write(f"{_CLEAR}{fitted(as_line(event).partition('  ')[2])}")
        else:
            sys.stdout.write(_CLEAR)
            show(event)
        sys.stdout.flush()

    return draw


def _ended(found: GroupInfo) -> str:
    return f"{found.counts.final} of {found.items if found.total is None else found.total}"


def _failed(counts: dict[str, int]) -> int:
    return counts["failed"] + counts["timed_out"]


def _words(data: dict[str, Any]) -> str:
    from apothic.cli.watching import group_words

    return group_words(data)
