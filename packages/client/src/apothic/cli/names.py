"""Names of apps, functions, jobs and deployments while somebody types a command: as remembered for a minute.

They are kept in `~/.cache/apothic`, one file for each cloud and key, so that most keystrokes ask nobody. A cloud that
does not answer at once is not waited for. Nothing here ever fails: without names, nothing is offered.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

if TYPE_CHECKING:
    from apothic.config import Endpoint

FRESH_S = 60.0
ANSWER_S_MAX = 1.0
JOBS = 50

Names = dict[str, Any]


def apps(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of apps that begin so."""
    return _beginning(incomplete, _known()["apps"])


def functions_of_apps(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return what `APP[::FUNCTION]` may be: apps, and functions once an app is named."""
    known = cast("dict[str, list[str]]", _known()["apps"])
    if "::" in incomplete:
        return _beginning(incomplete, (f"{app}::{name}" for app, names in known.items() for name in names))
    return _beginning(incomplete, known)


def functions_of_app(ctx: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the functions of the app that an option names, of every app without one."""
    known = cast("dict[str, list[str]]", _known()["apps"])
    app = ctx.params.get("app_name") or ctx.params.get("app")
    names = known.get(str(app), []) if app else {name for names in known.values() for name in names}
    return _beginning(incomplete, sorted(names))


def jobs(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids of the newest jobs that begin so."""
    return _beginning(incomplete, _known()["jobs"])


def deployments(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids of deployments that begin so."""
    return _beginning(incomplete, _known()["deployments"])


def outputs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return whatever has output: apps, functions, jobs, deployments."""
    found = functions_of_apps(ctx, parameter, incomplete)
    if incomplete:
        found += jobs(ctx, parameter, incomplete) + deployments(ctx, parameter, incomplete)
    return found


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _known() -> Names:
    """Return names as remembered; asks the cloud when they are old."""
    nothing: Names = {"apps": {}, "jobs": [], "deployments": []}
    try:
        from apothic.config import resolve

        endpoint = resolve()
        file = cache_file(endpoint, os.environ)
        kept, is_fresh = _read(file)
        if is_fresh:
            return kept
        found = _ask(endpoint)
        if found is None:
            return kept or nothing
        _keep(file, found)
        return found
    except Exception:
        return nothing


def cache_file(endpoint: Endpoint, environ: Any) -> Path:
    """Return where the names of a cloud are kept, as this key may see them."""
    base = environ.get("XDG_CACHE_HOME") or ""
    folder = Path(base) if base.startswith("/") else Path(environ.get("HOME") or Path.home()) / ".cache"
    which = hashlib.sha256(f"{endpoint.url} {endpoint.authorization}".encode()).hexdigest()[:16]
    return folder / "apothic" / f"names-{which}.json"


def _read(file: Path) -> tuple[Names, bool]:
    try:
        age_s = time.time() - file.stat().st_mtime
        found = json.loads(file.read_bytes())
        return ({}, False) if set(found) != {"apps", "jobs", "deployments"} else (found, 0 <= age_s < FRESH_S)
    except (OSError, ValueError, TypeError):
        return {}, False


def _ask(endpoint: Endpoint) -> Names | None:
    from apothic._core import Core
    from apothic.client import ControlPlaneClient
    from apothic.errors import ApothicError

    client = ControlPlaneClient.from_core(Core(endpoint, timeout_s=ANSWER_S_MAX, allow_pickle=False))
    try:
        return {
            "apps": {app.name: list(app.functions) for app in client.list_apps()},
            "jobs": [job.job_id for job in client.list_jobs(limit=JOBS)],
            "deployments": [one.deployment_id for one in client.list_deployments()],
        }
    except ApothicError:
        return None


def _keep(file: Path, names: Names) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    half = file.with_name(f"{file.name}.{os.getpid()}")
    half.touch(mode=0o600)
    half.write_text(json.dumps(names))
    half.replace(file)
