"""`apothic dump`: one file with what is needed to find out what is wrong, without secrets."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click

from apothic.cli.console import print_fields, say
from apothic.cli.doctor import all_findings
from apothic.cli.settings import Settings, common_options
from apothic.config import config_file, endpoint_file, read_config
from apothic.errors import ApothicError, ConfigError
from apothic.wire.version import VERSION

LOG_BYTES_MAX = 4 * 1024 * 1024
"""Of each log the newest part."""

LOGS = ("server.log", "server.log.1", "up.log", "worker.log", "postgres/postgres.log")
HIDDEN = "[removed]"
_TOKEN = re.compile(r"\bl[a-z]_[0-9A-Za-z]{16,}")
_CREDENTIAL = re.compile(
    r"(?i)(authorization\W{1,4}(?:(?:bearer|basic) )?|(?:bearer|basic) |passw(?:or)?d\W{1,4}|secret\W{1,4})"
    r"[^\s\"',}]+"
)
_IN_URL = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(@)")


@click.command()
@click.argument("file", metavar="[FILE]", required=False)
@click.option("--data", metavar="FOLDER", help="Folder of a cloud on this machine, by default ~/.apothic/data.")
@common_options
@click.pass_obj
def dump(settings: Settings, file: str | None, data: str | None) -> None:
    """Write a .tar.gz with versions, settings, checks, the cloud's state and its newest logs, without secrets.

    Keys and passwords are removed; names of apps stay. Look through it before you give it to somebody. Without FILE it
    is apothic-dump-TIME.tar.gz in this folder. A file that is there already is not overwritten.
    """
    path = Path(file or time.strftime("apothic-dump-%Y%m%d-%H%M%S.tar.gz", time.gmtime()))
    folder = Path(data or os.environ.get("APOTHIC_DATA") or endpoint_file(os.environ).parent / "data")
    hide = _hider(_secrets(settings))
    try:
        with path.open("xb") as out:
            path.chmod(0o600)
            names = _write(out, _parts(settings, folder), hide)
    except FileExistsError:
        raise ConfigError(f"{path} is there already; name another file.", code="file_exists") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", code="file_unwritable") from None
    if settings.is_for_programs:
        settings.print_document({"file": str(path), "size_bytes": path.stat().st_size, "parts": names})
        return
    print_fields({"file": str(path), "size": f"{path.stat().st_size:,} bytes", "parts": ", ".join(names)})
    say("Keys and passwords are removed. Look through it before you give it to somebody.")


def _parts(settings: Settings, data: Path) -> Iterator[tuple[str, str]]:
    """Yield the names and the texts of the parts; a part that cannot be had says why."""
    yield "versions.json", _json(_versions())
    yield "settings.json", _json(_settings(settings))
    yield "doctor.json", _json([asdict(finding) for finding in all_findings(settings)])
    for name, path in (("ready", "/readyz"), ("identity", "/v1/identity"), ("workers", "/v1/workers"),
                       ("apps", "/v1/apps"), ("unfinished-jobs", "/v1/jobs?unfinished=true"),
                       ("metrics", "/metrics")):  # fmt: skip
        yield f"cloud/{name}.txt", _asked(settings, path)
    for name in LOGS:
        text = _tail(data / name)
        if text is not None:
            yield f"logs/{name.replace('/', '-')}", text


def _write(out: Any, parts: Iterator[tuple[str, str]], hide: Callable[[str], str]) -> list[str]:
    names: list[str] = []
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in parts:
            body = hide(text).encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"apothic-dump/{name}")
            entry.size, entry.mode, entry.mtime = len(body), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(body))
            names.append(name)
    return names


def _versions() -> dict[str, Any]:
    from importlib.metadata import distributions

    named = {str(one.metadata["Name"]): one.version for one in distributions()}
    return {"apothic": VERSION, "python": sys.version, "platform": platform.platform(), "packages": named}


def _settings(settings: Settings) -> dict[str, Any]:
    """Return variables and profiles; of whatever may hold a key only that it is set."""
    secret = re.compile("KEY|TOKEN|AUTH|SECRET|PASS|DATABASE_URL")
    variables = {
        name: HIDDEN if secret.search(name) else value
        for name, value in sorted(os.environ.items())
        if name.startswith("APOTHIC_")
    }
    try:
        config: Any = read_config(config_file(os.environ))
    except ApothicError as error:
        config = str(error)
    return {"base_url": settings.base_url, "variables": variables, "config": _without_keys(config)}


def _without_keys(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    table = cast("dict[str, Any]", value)
    return {name: HIDDEN if name == "api_key" else _without_keys(inner) for name, inner in table.items()}


def _asked(settings: Settings, target: str) -> str:
    path, _, query = target.partition("?")
    try:
        answer = settings.client().request("GET", path, query=dict([query.split("=")]) if query else None)
    except ApothicError as error:
        return f"{type(error).__name__}: {error}"
    return f"status {answer.status}\n{answer.body.decode('utf-8', 'replace')}"


def _tail(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - LOG_BYTES_MAX))
            return opened.read(LOG_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return None


def _secrets(settings: Settings) -> set[str]:
    """Return the credentials that this command itself can see."""
    found = {os.environ.get(name, "") for name in ("APOTHIC_API_KEY", "APOTHIC_AUTH_TOKEN", "APOTHIC_AUTH_HEADER")}
    try:
        authorization = settings.client().endpoint.authorization or ""
        found |= {authorization, authorization.rpartition(" ")[2]}
    except ApothicError:
        pass
    return {secret for secret in found if len(secret) >= 8}


def _hider(secrets: set[str]) -> Callable[[str], str]:
    """Return what removes credentials from a text: those that are known, and what looks like one."""

    def hide(text: str) -> str:
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        text = _TOKEN.sub(HIDDEN, text)
        text = _CREDENTIAL.sub(lambda match: f"{match[1]}{HIDDEN}", text)
        return _IN_URL.sub(lambda match: f"{match[1]}{HIDDEN}{match[2]}", text)

    return hide


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True)
