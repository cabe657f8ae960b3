"""`apothic image`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from apothic.cli.console import print_listed, print_text, say
from apothic.cli.ids import checked
from apothic.cli.refreshing import show_list, watch_option
from apothic.cli.settings import Settings, common_options
from apothic.errors import NotFoundError

if TYPE_CHECKING:
    from apothic._answers import AppInfo, EventRecord
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
    """List the images of live functions: Python, packages, and the last build that this deployment needed."""
    client = settings.client()

    def read() -> list[dict[str, Any]]:
        apps = client.list_apps() if app is None else [client.get_app(app)]
        return [entry for one in apps for entry in _images(client, one)]

    show_list(
        settings,
        read,
        ("APP", "FUNCTIONS", "PYTHON", "PACKAGES", "LAST BUILD"),
        lambda one: (one["app"], ", ".join(one["functions"]), one["python"], _packages(one["packages"]), _build(one)),
        empty="No app is live: `apothic deploy FILE` makes one so.",
        watches=watches,
    )


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
    for one in found:
        print_text(one["text"] if one["kind"] == "line" else f"{one['kind']} on {one['worker']}: {one['text']}")


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
