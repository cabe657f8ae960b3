"""`apothic image`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click

from apothic.cli.confirming import confirm, yes_option
from apothic.cli.console import print_listed, print_table, print_text, say
from apothic.cli.ids import checked
from apothic.cli.refreshing import show_list, watch_option
from apothic.cli.settings import Settings, common_options
from apothic.cli.since import age
from apothic.errors import NotFoundError

if TYPE_CHECKING:
    from apothic._answers import AppInfo, EventRecord
    from apothic._environments import HeldEnvironment, HeldEnvironments
    from apothic.client import ControlPlaneClient

_ENDS = "deployment.built,deployment.build_failed"
_PACKAGES_SHOWN = 3


@click.group()
@common_options
def image() -> None:
    """What functions have beside the app's modules, and the logs of builds."""


@image.command("list")
@click.argument("app", metavar="[APP]", required=False)
@watch_option
@common_options
@click.pass_obj
def list_images(settings: Settings, app: str | None, watches: bool) -> None:
    """List the images of live functions: Python, packages, their size and age on workers, and the last build."""
    client = settings.client()

    def read() -> list[dict[str, Any]]:
        apps = client.list_apps() if app is None else [client.get_app(app)]
        found = [entry for one in apps for entry in _images(client, one)]
        held = client.list_environments().items if any(one["environment"] for one in found) else ()
        return [{**one, "held": [asdict(on) for on in held if on.environment == one["environment"]]} for one in found]

    show_list(
        settings,
        read,
        ("APP", "FUNCTIONS", "PYTHON", "PACKAGES", "SIZE", "AGE", "LAST BUILD"),
        _cells,
        empty="No app is live: `apothic deploy FILE` makes one so.",
        watches=watches,
    )


@image.command()
@click.option("--dry-run", is_flag=True, help="List what would be removed, and remove nothing.")
@yes_option
@common_options
@click.pass_obj
def prune(settings: Settings, dry_run: bool, yes: bool) -> None:
    """Remove the installed packages that no live deployment needs from all workers.

    What is wanted later is installed again. Environments of live deployments, of unfinished jobs and of processes that
    have them loaded stay.
    """
    client = settings.client()
    found = client.list_environments()
    idle = tuple(one for one in found.items if not one.is_needed and not one.is_in_use)
    if dry_run:
        _show_pruned(settings, replace(found, items=idle), f"Would remove {_amount(idle)}; what others share stays.")
        return
    if idle or not found.is_known:
        confirm(settings, f"Remove {_amount(idle)}? What is wanted later is installed again.", yes=yes)
    done = client.prune_environments() if idle or not found.is_known else replace(found, items=())
    _show_pruned(settings, done, f"Removed {_amount(done.items)}; {size(done.freed_bytes)} of disk are free again.")


@image.command()
@click.argument("target", metavar="APP|DEPLOYMENT")
@common_options
@click.pass_obj
def logs(settings: Settings, target: str) -> None:
    """Print the kept logs of the builds of a deployment; of an app's live one when an app is named."""
    client = settings.client()
    deployment = checked(target, "deployments") if ":" in target else client.get_app(target).deployment_id
    if deployment is None:
        raise NotFoundError(f"App {target} is stopped; name one of its deployments.")
    found = [_line(event) for event in _events(client, deployment, f"deployment.build_log,{_ENDS}")]
    if settings.is_for_programs:
        print_listed(found, is_jsonl=settings.is_jsonl)
        return
    if not found:
        say("No build was needed: there is nothing to install, or the packages were there already.")
    for one in _apart(found):
        print_text(one["text"] if one["kind"] == "line" else f"{one['kind']} on {one['worker']}: {one['text']}")


def _show_pruned(settings: Settings, found: HeldEnvironments, said: str) -> None:
    if settings.is_for_programs:
        document = asdict(found)
        settings.print_document({"removed": document.pop("items"), **document})
        return
    now = datetime.now(timezone.utc)  # noqa: UP017 - the client also runs on 3.10
    if found.items:
        print_table(
            ("WORKER", "ENVIRONMENT", "SIZE", "AGE", "LAST USED"),
            [
                (
                    one.worker,
                    one.environment,
                    size(one.size_bytes),
                    age(one.built_at, now),
                    f"{age(one.used_at, now)} ago",
                )
                for one in found.items
            ],
        )
    for name in found.unanswered:
        say(f"Worker {name} did not answer in time.")
    if not found.is_known:
        say("This server does not dispatch, so no worker is linked to it; ask the one that does.")
    else:
        say(said if found.items else "Nothing to remove: live deployments need all that is installed.")


def _amount(found: Sequence[HeldEnvironment]) -> str:
    count = "1 environment" if len(found) == 1 else f"{len(found)} environments"
    return f"{count} of {size(sum(one.size_bytes for one in found))}"


def size(size_bytes: int) -> str:
    """Return a number of bytes in a unit that suits it."""
    for unit, length in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size_bytes >= length:
            return f"{size_bytes / length:.1f} {unit}"
    return f"{size_bytes} bytes"


def _images(client: ControlPlaneClient, app: AppInfo) -> list[dict[str, Any]]:
    """Return the images of an app's live functions; functions that have the same share one entry."""
    if app.deployment_id is None:
        return []
    manifest = client.get_deployment(app.deployment_id).manifest or {}
    by_image: dict[str, list[str]] = {}
    for function in manifest.get("functions", []):
        by_image.setdefault(json.dumps(function.get("image"), sort_keys=True), []).append(function["name"])
    found = [_image(json.loads(text) or {}, names) for text, names in by_image.items()]
    ends = list(_events(client, app.deployment_id, _ENDS)) if any(one["packages"] for one in found) else []
    builds = {end.data["environment"]: _line(end) for end in ends}
    python = manifest.get("python", "")
    return [
        {
            "app": app.name,
            "deployment_id": app.deployment_id,
            **one,
            "python": one["python"] or python,
            "build": builds.get(one["environment"]),
        }
        for one in found
    ]


def _image(image: dict[str, Any], functions: list[str]) -> dict[str, Any]:
    from apothic.wire.images import ImageSpec, environment_id

    packages = image.get("requirements", [])
    return {
        "functions": functions,
        "python": image.get("python", ""),
        "packages": packages,
        "environment": environment_id(ImageSpec(image["python"], tuple(packages))) if packages else None,
        "workdir": image.get("workdir", ""),
        "files": sorted(image.get("mounts", {})),
        "recorded": image.get("recorded", []),
    }


def _events(client: ControlPlaneClient, deployment: str, kinds: str) -> Iterator[EventRecord]:
    """Yield the events of these kinds that a deployment has had so far."""
    from apothic._operations import event_page, part

    after, is_whole = -1, False
    while not is_whole:
        page = client.run(event_page(client.core, f"/v1/deployments/{part(deployment)}/events", after, kinds))
        yield from (event for event in page.events if event.index > after)
        is_whole = page.is_final or page.last_index <= after
        after = page.last_index


def _line(event: EventRecord) -> dict[str, Any]:
    """Return one line of a build, or its end."""
    kind = {"deployment.build_log": "line", "deployment.built": "built"}.get(event.event, "failed")
    took_ms = event.data.get("took_ms")
    text = event.data.get("line") or event.data.get("message") or ("" if took_ms is None else f"{took_ms / 1000:.1f} s")
    return {
        "kind": kind,
        "text": text,
        "worker": event.data.get("worker"),
        "environment": event.data.get("environment"),
        "time": event.data.get("time"),
    }


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    now = datetime.now(timezone.utc)  # noqa: UP017 - the client also runs on 3.10
    newest = max(one["held"], key=lambda held: held["built_at"], default=None)
    shown = ("-", "-") if newest is None else (size(newest["size_bytes"]), age(newest["built_at"], now))
    return (one["app"], ", ".join(one["functions"]), one["python"], _packages(one["packages"]), *shown, _build(one))


def _apart(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of one environment after those of the other: two are built at once."""
    order = list(dict.fromkeys(one["environment"] for one in lines))
    return sorted(lines, key=lambda one: order.index(one["environment"]))


def _packages(packages: list[str]) -> str:
    more = len(packages) - _PACKAGES_SHOWN
    return (", ".join(packages[:_PACKAGES_SHOWN]) or "none") + (f" and {more} more" if more > 0 else "")


def _build(one: dict[str, Any]) -> str:
    if one["recorded"]:
        return "needs an image builder"
    build = one["build"]
    if build is None:
        return "-"
    return f"{build['kind']} on {build['worker']}" + (f" in {build['text']}" if build["kind"] == "built" else "")
