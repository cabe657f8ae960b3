"""Settings of a worker process."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from apothic.wire.handover import SOCKET
from apothic.wire.limits import DISK_FLOOR_MB, LINK_CREDITS
from apothic.wire.tokens import token_kind
from apothic_worker.lease import ALONE_S

TOKEN_VARIABLE = "APOTHIC_WORKER_TOKEN"  # noqa: S105
EXECUTORS = ("sandbox", "process")


class ConfigError(Exception):
    """A setting is missing or wrong; the text says which and what to do."""


@dataclass(frozen=True)
class Config:
    """All settings.

    Attributes:
        url: Address of the control plane, http or https; a file that holds it when the address can change.
        token: Worker token, `lw_…`; a file that holds it when it can change.
        data: Folder of this worker alone.
        executor: One of `EXECUTORS`.
        cpus: Processors to offer; None for all.
        memory_mb: MiB to offer; None for a share of the machine's.
        trust_user_code: Allow the executor `process` as root and for several orgs.
        is_local: The server runs on this host, so work goes on while it is away.
        more_urls: Further addresses of the control plane, tried when the first does not answer.
        is_insecure: Send the token over plain http to other hosts.
        is_leased: With `is_local`: other servers share the database, so work ends with its lease as elsewhere.
        disk_floor_mb: Free MiB of the data folder's disk below which the runner that writes most is stopped; 0: none.
        alone_s: With `is_local`: end when nothing is held and no server was there for this long.
    """

    url: str | Path
    token: str | Path
    data: Path
    executor: str = "sandbox"
    cpus: float | None = None
    memory_mb: int | None = None
    name: str = ""
    trust_user_code: bool = False
    is_local: bool = False
    alone_s: float = ALONE_S
    more_urls: tuple[str, ...] = ()
    is_leased: bool = False
    credits: int = LINK_CREDITS
    is_insecure: bool = False
    disk_floor_mb: int = DISK_FLOOR_MB

    @property
    def values_socket(self) -> Path | None:
        """Socket of the server on this host, which takes and gives large values; beside the file with its address."""
        return self.url.with_name(SOCKET) if self.is_local and isinstance(self.url, Path) else None

    def follows(self, url: str) -> bool:
        """Return whether a server that the control plane named is dialled, and sent the token.

        One that is reached only from the host of the control plane is somebody else's here.
        """
        if not url.startswith(("http://", "https://")):
            return False
        if self.is_local:
            return True
        usual = self.url if isinstance(self.url, str) else ""
        is_near = is_loopback(url)
        return is_loopback(usual) if is_near else url.startswith("https://") or self.is_insecure

    def where(self) -> tuple[str, str]:
        """Return address and token as they are now.

        Raises:
            ConfigError: A file that holds one of them cannot be read or holds something else.
        """
        url = _read(self.url, "the address file") if isinstance(self.url, Path) else self.url
        return check_url(url), _read_token(self.token) if isinstance(self.token, Path) else self.token


def check_url(url: str, option: str = "--url") -> str:
    """Return the address without a trailing slash; `option` says where it came from.

    Raises:
        ConfigError: It is no http or https address.
    """
    parts = urllib.parse.urlsplit(url)
    try:
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"{option} {url!r} is no address of a control plane, such as http://127.0.0.1:8400")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether an address is on the host that dials it."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def check_sending(url: str, *, is_insecure: bool) -> None:
    """Check that a token may be sent there.

    Raises:
        ConfigError: It would cross the network in plain text, and nobody allowed that.
    """
    if not url.startswith("https://") and not is_loopback(url) and not is_insecure:
        raise ConfigError(
            f"{url} is plain http: everybody on the way could read the token and all data, and answer in the server's "
            "place; use https, or say --insecure where the network itself is private and encrypted"
        )


def token_of_environment() -> str:
    """Return the worker's token from `APOTHIC_WORKER_TOKEN`, which is not passed on to any other process.

    Raises:
        ConfigError: There is none, or it is malformed.
    """
    return _checked(os.environ.pop(TOKEN_VARIABLE, ""), TOKEN_VARIABLE)


def _read_token(file: Path) -> str:
    text = _read(file, "the token file")
    check_private(file, "the token file")
    return _checked(text, str(file))


def check_private(file: Path, what: str) -> None:
    """Check that nobody but its owner may read a file.

    Raises:
        ConfigError: Others may.
    """
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"others may read {what} {file}; run: chmod 600 {file}")


def _checked(token: str, source: str) -> str:
    if not token:
        raise ConfigError(f"no worker token: name a file with --token-file or set {TOKEN_VARIABLE}")
    if token_kind(token) != "lw":
        raise ConfigError(f"{source} holds no worker token; a worker token begins with lw_")
    return token


def default_name() -> str:
    """Return the host name."""
    return socket.gethostname()


def default_worker_name() -> str:
    """Return the host name in the form that names of workers have; empty when nothing of it is left."""
    return re.sub(r"[^a-z0-9]+", "-", default_name().lower())[:63].strip("-")


def _read(file: Path, what: str) -> str:
    try:
        return file.read_bytes().decode("ascii", "replace").strip()
    except OSError as error:
        raise ConfigError(f"{what} {file} cannot be read: {error.strerror}") from error
