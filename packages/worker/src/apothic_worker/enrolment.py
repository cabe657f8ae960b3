"""How a worker on another host joined its cloud: the exchange of a join token for a credential, and where it is kept.

The worker makes the credential and keeps it before it sends it. When the answer is lost, the same token sent again is
the same worker; when the server refuses, the file goes away and nothing has changed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import sys
import urllib.parse
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from apothic.wire.names import WORKER_NAME_RULE, is_worker_name
from apothic.wire.tokens import new_token, token_kind
from apothic.wire.version import VERSION
from apothic_worker.config import ConfigError, check_private, check_sending, check_url

FILE = "credential.json"
TIMEOUT_S = 20.0
ANSWER_BYTES_MAX = 64 * 1024
TOKEN_BYTES_MAX = 256


class JoinRefused(Exception):
    """The server does not take this worker; `code` is that of its error, `status` the HTTP status."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


class JoinFailed(Exception):
    """It is not known whether the worker has joined; the same command again finds out."""


@dataclass(frozen=True)
class Enrolled:
    """What the data folder says about its worker.

    Attributes:
        server: Address of the control plane.
        token: The worker's credential, `lw_…`.
        is_insecure: Plain http to another host was allowed.
        is_joined: The server has taken the credential.
    """

    server: str
    name: str
    token: str
    is_insecure: bool = False
    is_joined: bool = False


def load(data: Path) -> Enrolled | None:
    """Return what the folder holds; None when no worker joined from here.

    Raises:
        ConfigError: The file is damaged, or others may read it.
    """
    file = data / FILE
    try:
        fields: object = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{file} is damaged; remove it and join again with a new token") from None
    check_private(file, "the credential file")
    found = cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}
    kinds = {"server": str, "name": str, "token": str, "is_insecure": bool, "is_joined": bool}
    is_whole = set(found) == set(kinds) and all(type(found[name]) is kind for name, kind in kinds.items())
    if not is_whole or token_kind(found["token"]) != "lw":
        raise ConfigError(f"{file} is damaged; remove it and join again with a new token")
    return Enrolled(**found)


def prepare(data: Path, *, server: str | None, name: str | None, is_insecure: bool) -> Enrolled:
    """Return the worker of the folder, made now unless there is one; a new one has not joined yet.

    Args:
        name: None for the one that the folder's worker has.

    Raises:
        ConfigError: The folder's worker belongs to another server or has another name, or what is given cannot be used.
    """
    found = load(data)
    server = None if server is None else check_url(server, "--server")
    if found is not None and found.is_joined:
        if server not in (None, found.server):
            raise ConfigError(f"the worker in {data} has joined {found.server}; name another folder with --data")
        if name not in (None, found.name):
            raise ConfigError(f"the worker in {data} has joined as {found.name}; name another folder with --data")
        return found
    if server is None:
        raise ConfigError(f"no worker has joined from {data} yet: give --server and --token-file")
    check_sending(server, is_insecure=is_insecure)
    if name is None and found is not None:
        name = found.name
    if name is None or not is_worker_name(name):
        raise ConfigError(f"{name!r} is no name for a worker, choose one with --name: {WORKER_NAME_RULE}")
    if found is not None and found.server == server:
        return replace(found, name=name, is_insecure=is_insecure)
    return Enrolled(server, name, new_token("lw"), is_insecure)


def read_join_token(source: str) -> str:
    """Return the join token in a file, or on standard input for `-`.

    Raises:
        ConfigError: It cannot be read, others may read it too, or it is no join token.
    """
    try:
        if source == "-":
            text = sys.stdin.buffer.readline(TOKEN_BYTES_MAX)
        else:
            check_private(Path(source), "the token file")
            with Path(source).open("rb") as file:
                text = file.read(TOKEN_BYTES_MAX)
    except OSError as error:
        raise ConfigError(f"the token file {source!r} cannot be read: {error.strerror}") from None
    token = text.decode("ascii", "replace").strip()
    if token_kind(token) != "li":
        raise ConfigError(f"{source} holds no join token; it begins with li_, `apothic worker token` makes one")
    return token


def join(data: Path, worker: Enrolled, join_token: str) -> Enrolled:
    """Exchange a join token; returns the worker, joined and saved. Blocks for up to `TIMEOUT_S` and a moment.

    Raises:
        JoinRefused: The server said no; nothing has changed.
        JoinFailed: No answer came that says so or otherwise.
    """
    _save(data, worker)
    try:
        status, answer = _ask(worker, join_token)
    except (OSError, http.client.HTTPException) as error:
        raise JoinFailed(f"{worker.server} gives no answer: {error}; the same command tries again") from None
    if status == 201:
        joined = replace(worker, is_joined=True)
        _save(data, joined)
        return joined
    code, detail = str(answer.get("code", "")), answer.get("detail")
    said = detail if isinstance(detail, str) else json.dumps(detail)
    if not 400 <= status < 500 or not code or status == 429:
        raise JoinFailed(f"{worker.server} answered {status} and no cloud's word; the same command tries again")
    with contextlib.suppress(FileNotFoundError):
        (data / FILE).unlink()
    raise JoinRefused(status, code, said)


def _ask(worker: Enrolled, join_token: str) -> tuple[int, dict[str, Any]]:
    parts = urllib.parse.urlsplit(worker.server)
    body = json.dumps({"name": worker.name, "credential": worker.token}).encode()
    headers = {
        "Authorization": f"Bearer {join_token}",
        "Content-Type": "application/json",
        "User-Agent": f"apothic-worker/{VERSION}",
    }
    connection = _connection(parts)
    try:
        connection.request("POST", f"{parts.path.rstrip('/')}/v1/link/join", body, headers)
        response = connection.getresponse()
        return response.status, _object(response.read(ANSWER_BYTES_MAX))
    finally:
        connection.close()


def _connection(parts: urllib.parse.SplitResult) -> http.client.HTTPConnection:
    make: Callable[..., http.client.HTTPConnection] = http.client.HTTPConnection
    options: dict[str, Any] = {"timeout": TIMEOUT_S}
    if parts.scheme == "https":
        make, options["context"] = http.client.HTTPSConnection, ssl.create_default_context()
    return make(parts.hostname or "", parts.port, **options)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found: object = json.loads(body)
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _save(data: Path, worker: Enrolled) -> None:
    """Write the file whole or not at all, for its owner alone, and have it on disk before anything is sent."""
    half = data / f".{FILE}"
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(worker), file)
        file.flush()
        os.fsync(descriptor)
    half.replace(data / FILE)
    folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
