"""Options of `apothic up` and its neighbours: what they may be, checked before anything is made."""

from __future__ import annotations

import ipaddress
import math
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from apothic_server.settings import Settings
from apothic_server.store.address import StoreAddress
from apothic_server.store.launcher import server_uid


class FiniteRange(click.FloatRange):
    """A number within bounds; neither infinity nor what is no number, which compares with no bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; click tells what is none."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def home() -> Path:
    """Return the folder with what belongs to this user's clouds."""
    return Path(os.environ.get("APOTHIC_HOME", "~/.apothic")).expanduser()


def data_folder(given: Path | None) -> Path:
    """Return the data folder that was named, or the usual one."""
    return (given or home() / "data").absolute()


def data_option(command: click.decorators.FC) -> click.decorators.FC:
    """Add the option `--data`."""
    return click.option(
        "--data",
        type=NamedFolder(path_type=Path, file_okay=False),
        envvar="APOTHIC_DATA",
        help="Folder of this cloud (default: ~/.apothic/data).",
    )(command)


class NamedFolder(click.Path):
    """A path that is not empty: the folder that one happens to be in is never meant by nothing."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; click tells an empty one."""
        if not str(value):
            self.fail("names no folder.", param, ctx)
        return super().convert(value, param, ctx)


def shared_folder(folder: Path | None, database_url: str | None) -> Path | None:
    """Return the folder of `--shared`.

    Raises:
        click.UsageError: It is no folder, or there is no database to share.
    """
    if folder is None:
        return None
    if database_url is None:
        raise click.UsageError("--shared is for several servers on one database; name it with --database-url")
    if not folder.is_dir():
        raise click.UsageError(f"--shared names {folder}, which is no folder")
    return folder.absolute()


def public_address(url: str | None) -> str | None:
    """Return the address of `--public-url`.

    Raises:
        click.UsageError: It is none.
    """
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise click.UsageError(f"--public-url {url!r} is no address such as https://server-1.example:8400")
    return url.rstrip("/")


def check(settings: Settings) -> None:
    """Check what can be known of settings before anything is made.

    Raises:
        click.UsageError: An option cannot be, or not with another one.
        StoreError: The address of the database is malformed (`store_url`), or nobody can run it as the user that is
            named (`store_identity`).
    """
    _check_host(settings)
    if settings.database_url is not None:
        StoreAddress.from_url(settings.database_url)
    else:
        server_uid(settings.pg_user)
    is_free = settings.executor == "process" and settings.has_worker and os.geteuid() == 0
    if is_free and not settings.trust_user_code:
        raise click.UsageError(
            "as root, --executor process would run user code as root: use the sandbox, or say --trust-user-code"
        )


def _check_host(settings: Settings) -> None:
    try:
        is_loopback = settings.host == "localhost" or ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        raise click.UsageError(f"--host takes an IP address, not {settings.host!r}") from None
    if not is_loopback and not settings.behind_proxy:
        raise click.UsageError(
            f"listening on {settings.host} would send keys in plain text over the network; "
            "put a proxy that does TLS in front and say --behind-proxy"
        )
